use rumqttd::protocol::Login;
use service_kit::config::Secret;
use uuid::Uuid;

/// By which the broker knows clients of its own process. It is made up anew at each start, and
/// written nowhere.
#[derive(Clone)]
pub struct OwnLogin {
    /// The user name.
    pub username: String,
    /// The password.
    pub password: Secret<String>,
}

impl OwnLogin {
    pub(crate) fn new() -> Self {
        Self {
            username: "hark".to_owned(),
            password: Secret::new(Uuid::new_v4().to_string()),
        }
    }

    pub(crate) fn is(&self, login: Option<&Login>) -> bool {
        login.is_some_and(|login| {
            login.username == self.username && &login.password == self.password.reveal()
        })
    }
}

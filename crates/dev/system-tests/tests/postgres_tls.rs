//! The connection to PostgreSQL is encrypted, and the server is who its certificate says.

use std::time::Duration;

use system_tests::{Node, Sender, new_channel};
use test_kit::{Certificates, Mosquitto, Postgres, Program};

const SOON: Duration = Duration::from_secs(20);

fn url(postgres: &Postgres) -> String {
    let (user, address) = (Postgres::USER, postgres.address());
    format!("postgres://{user}@{address}/postgres")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_stored_over_an_encrypted_connection() {
    let (broker, postgres) = tokio::join!(Mosquitto::start(), Postgres::start_with_tls());
    let chat = Node::chat_service_on_postgres(&broker.url(), &url(&postgres))
        .env("HARK_STORE__POSTGRES__TLS", "true")
        .env("HARK_STORE__POSTGRES__CA_FILE", postgres.authority())
        .started()
        .await;
    let (sender, channel) = (Sender::to(chat.url()), new_channel());
    let posted = sender.post(&channel, "in secret").await;
    let page = sender.page(&channel, 0).await;
    assert_eq!(page["messages"][0], posted.event);
    let encrypted = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                     WHERE application_name = 'hark'";
    assert_eq!(postgres.run("postgres", encrypted).await, "t");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_trust_on_both_sides_it_does_not_start_and_says_why() {
    let postgres = Postgres::start_with_tls().await;
    let folder = tempfile::tempdir().unwrap();
    let others = Certificates::write(folder.path());
    for (tls, why) in [("true", "certificate"), ("false", "no encryption")] {
        let chat_service = Program::of_workspace("chat-service")
            .env("HARK_LISTEN", "127.0.0.1:0")
            .env("HARK_OPERATIONS__LISTEN", "127.0.0.1:0")
            .env("HARK_STORE__ENGINE", "postgres")
            .env("HARK_STORE__POSTGRES__URL", url(&postgres))
            .env("HARK_STORE__POSTGRES__PASSWORD", Postgres::PASSWORD)
            .env("HARK_STORE__POSTGRES__TLS", tls)
            .env("HARK_STORE__POSTGRES__CA_FILE", others.authority());
        let ended = chat_service.run(SOON).await;
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        assert!(ended.stderr.contains(why), "{ended:?}");
    }
}

//! `hark doctor`: checks a deployment from outside, as a user's browser sees it, and says what to do.
//!
//! It posts four messages of type `doctor` to a channel that nobody else knows.

mod cors;
mod findings;
mod operations;
mod stream;
mod watch;

use std::time::Duration;

use axum::http::StatusCode;
use chat_model::ChannelId;
use clock::{Clock, SystemClock};
use http_server::http_client::{BaseUrl, HttpClient};
use service_command::Failure;
use service_kit::tls;
use tokio::net::TcpStream;
use tokio::time::timeout;

use self::findings::Findings;
use crate::cli::Doctor;
use crate::client::{ask, base, client, get, reason};

/// How far the clocks of two machines may differ before people notice.
const SKEW: Duration = Duration::from_secs(2);

/// A deployment, and what was found.
struct Patient {
    chat: BaseUrl,
    sse: BaseUrl,
    chat_client: HttpClient,
    sse_client: HttpClient,
    channel: ChannelId,
    findings: Findings,
}

pub(crate) async fn run(options: Doctor) -> Result<(), Failure> {
    let (chat, sse) = (base(&options.chat)?, base(&options.sse)?);
    let ca_file = options.ca_file.as_deref();
    let mut patient = Patient {
        chat_client: client(&chat, ca_file)?,
        sse_client: client(&sse, ca_file)?,
        chat,
        sse,
        channel: uuid::Uuid::new_v4().into(),
        findings: Findings::default(),
    };
    if let Some(seconds) = options.watch {
        watch::watch(&mut patient, Duration::from_secs(seconds)).await;
        return patient.findings.conclude();
    }
    if patient.chat_answers().await {
        if let Some(origin) = &options.origin {
            cors::check(&mut patient, origin).await;
        } else {
            patient.findings.note(
                "pages of other hosts were not checked: name one with --origin https://chat.example",
            );
        }
        stream::check(&mut patient).await;
        patient.speaks_http2(ca_file).await?;
    }
    for ops in &options.ops {
        operations::check(&mut patient.findings, &base(ops)?, ca_file).await?;
    }
    patient.findings.conclude()
}

impl Patient {
    /// Checks chat-service; returns whether it is worth continuing.
    async fn chat_answers(&mut self) -> bool {
        let url = self.chat.join(&format!("channels/{}", self.channel));
        let answer = match ask(&self.chat_client, get(url)).await {
            Ok(answer) => answer,
            Err(error) => {
                self.findings.fail(
                    &format!("{} does not answer: {error}", self.chat),
                    "start chat-service; if there is a proxy in front of it, look at the proxy's log",
                );
                return false;
            }
        };
        if answer.status() != StatusCode::OK {
            let advice = match answer.status() {
                StatusCode::UNAUTHORIZED => {
                    "put user name and password into the URL: https://user:password@host"
                }
                StatusCode::FORBIDDEN => "put the name of the host into access.allowed_hosts",
                StatusCode::NOT_FOUND => "is it the URL of chat-service, with its path?",
                StatusCode::SERVICE_UNAVAILABLE => "look at /readyz of chat-service",
                _ => "look at the log of chat-service, and of the proxy in front of it",
            };
            let said = format!(
                "{} answers {}: {}",
                self.chat,
                answer.status(),
                reason(&answer)
            );
            self.findings.fail(&said, advice);
            return false;
        }
        self.findings.ok("chat-service answers");
        let date = answer.headers().get("date");
        self.compare_clocks(date.and_then(|date| date.to_str().ok()));
        true
    }

    fn compare_clocks(&mut self, date: Option<&str>) {
        let Some(Ok(theirs)) = date.map(httpdate::parse_http_date) else {
            self.findings.warn(
                "the answer has no readable Date",
                "let the proxy pass on the header Date (RFC 9110, section 6.6.1)",
            );
            return;
        };
        // A time before 1970 differs enough in any case.
        let theirs = theirs
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        let ours = u64::try_from(SystemClock.now().as_millis()).unwrap_or(0);
        let skew = Duration::from_millis(ours).abs_diff(theirs);
        // Date has whole seconds.
        if skew > SKEW + Duration::from_secs(1) {
            self.findings.warn(
                &format!(
                    "its clock and this machine's differ by {} s",
                    skew.as_secs()
                ),
                "set both clocks right (NTP): message times come from the server's clock",
            );
        } else {
            self.findings.ok("its clock agrees with this machine's");
        }
    }

    async fn speaks_http2(&mut self, ca_file: Option<&std::path::Path>) -> Result<(), Failure> {
        const ADVICE: &str = "over HTTP/1.1 a browser opens six connections to a host, for all its tabs; serve \
                              streams over HTTP/2 (tls.cert of broadcast-sse, or the proxy's `http2`)";
        let url = self.sse.join("");
        let (true, Some(host)) = (self.sse.is_https(), url.host()) else {
            self.findings
                .warn("streams come over plain HTTP/1.1", ADVICE);
            return Ok(());
        };
        let mut config = (*tls::client(ca_file).map_err(Failure::failed)?).clone();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let address = (host.trim_matches(['[', ']']), url.port_u16().unwrap_or(443));
        let connected = timeout(Duration::from_secs(10), async {
            let name = rustls::pki_types::ServerName::try_from(address.0.to_owned()).ok()?;
            let socket = TcpStream::connect(address).await.ok()?;
            let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
            let stream = connector.connect(name, socket).await.ok()?;
            Some(stream.get_ref().1.alpn_protocol() == Some(b"h2"))
        });
        // The stream was opened before, so a failure now is temporary.
        match connected.await.ok().flatten() {
            Some(true) => self.findings.ok("streams can share a connection (HTTP/2)"),
            Some(false) => self.findings.warn("streams come over HTTP/1.1", ADVICE),
            None => self
                .findings
                .note("could not find out whether it speaks HTTP/2"),
        }
        Ok(())
    }
}

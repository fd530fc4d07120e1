use std::io;
use std::time::Duration;

use rumqttc::mqttbytes::Error as CodecError;
use rumqttc::mqttbytes::v4::ConnectReturnCode;
use rustls::{CertificateError, Error as RustlsError};
use service_kit::tls::TlsError;

use crate::stream::StreamError;
use crate::{BrokerUrl, MqttConfig};

/// Why there is no connection, in words for the operator.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("cannot connect: {0}")]
    NoConnection(io::Error),
    #[error("no answer within {0:?}")]
    ConnectTimeout(Duration),
    #[error("{}", refused(*.0))]
    Refused(ConnectReturnCode),
    #[error("not what MQTT 3.1.1 allows here: {0}")]
    Codec(#[from] CodecError),
    #[error("the broker sent an unexpected packet: {0}")]
    Unexpected(&'static str),
    #[error("the broker closed the connection")]
    Closed,
    #[error("the broker did not answer a ping")]
    Silent,
    #[error("the broker did not acknowledge within {0:?}")]
    Unacknowledged(Duration),
    /// The file or the system's authorities cannot be used.
    #[error("{0}")]
    Trust(#[from] TlsError),
    #[error("TLS: {0}")]
    Tls(RustlsError),
    #[error("a certificate cannot be issued for this host name")]
    NotAName,
    /// RabbitMQ refuses in this way, instead of in its answer.
    #[error(
        "the broker ended the connection when it was asked for a subscription; its access rules may not let this user read there"
    )]
    EndedAtSubscribe,
    /// An error before the CONNACK, explained.
    #[error("{0}")]
    Unwelcome(String),
}

impl From<StreamError> for ConnectionError {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Closed => Self::Closed,
            StreamError::Io(error) => Self::Io(error),
            StreamError::Tls(error) => Self::Tls(error),
        }
    }
}

impl ConnectionError {
    /// Whether the broker ended the connection, as it does when it rejects a message (MQTT 3.1.1
    /// §3.3.5). A silent network, or a broker that withholds its answers, does not point to a message.
    pub(crate) fn ended_by_broker(&self) -> bool {
        matches!(self, Self::Closed | Self::Io(_))
    }

    /// Explains what this error means for an attempt to connect.
    pub(super) fn while_connecting(self, config: &MqttConfig, url: &BrokerUrl) -> Self {
        let sentence = match &self {
            Self::Closed | Self::Io(_) if !url.is_tls() => format!(
                "the broker ended the connection before it answered ({self}); does it speak TLS at this port (mqtts://)?"
            ),
            Self::Tls(error) => not_trusted(error, config, url),
            _ => return self,
        };
        Self::Unwelcome(sentence)
    }
}

fn refused(code: ConnectReturnCode) -> &'static str {
    match code {
        ConnectReturnCode::Success => "the broker took the connection",
        ConnectReturnCode::RefusedProtocolVersion => "the broker does not speak MQTT 3.1.1",
        ConnectReturnCode::BadClientId => {
            "the broker refused the client id; look at `mqtt.client_id_prefix`"
        }
        ConnectReturnCode::ServiceUnavailable => "the broker says that it is not available now",
        ConnectReturnCode::BadUserNamePassword => {
            "the broker refused the log-in: `mqtt.username` or `mqtt.password` is wrong"
        }
        // Mosquitto and NATS answer a wrong password with this.
        ConnectReturnCode::NotAuthorized => {
            "the broker refused the log-in: not authorised. `mqtt.username` or `mqtt.password` is wrong, or this user may not connect"
        }
    }
}

fn not_trusted(error: &RustlsError, config: &MqttConfig, url: &BrokerUrl) -> String {
    let host = url.host();
    match error {
        RustlsError::InvalidCertificate(why) => match why {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!("the broker's certificate is not for {host}, the host in `mqtt.url`: {why}")
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => {
                format!("the broker's certificate is not valid at this time: {why}")
            }
            _ if config.ca_file.is_empty() => format!(
                "the broker's certificate is not trusted by this system's authorities: {why}. If your own authority signed it, name that authority's file in `mqtt.ca_file`"
            ),
            _ => format!(
                "the broker's certificate is not trusted by the authorities in `mqtt.ca_file` ({}): {why}",
                config.ca_file
            ),
        },
        RustlsError::InvalidMessage(_) => {
            format!("the broker does not speak TLS at this port (mqtt://?): {error}")
        }
        _ => format!("TLS: {error}"),
    }
}

//! The SDK's client, with nothing hidden in it.
//!
//! Retries are off: the SDK would send a `PutRecords` call again that may have been taken, and a record in it that was
//! refused alone would wait for nobody. The publisher and the cursors retry what their protocol allows, knowing what
//! each attempt has left behind.

use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_sdk_kinesis::Client;
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_runtime_api::client::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use eb_contract::{Error, ErrorKind, Result};

use crate::config::{CredentialSource, KinesisConfig};

/// Makes the client. Nothing is asked of the service yet.
pub(crate) async fn connect(config: &KinesisConfig) -> Result<Client> {
    let http = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(config.timeouts.connect)
        .operation_attempt_timeout(config.timeouts.attempt)
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts)
        // Answers are small and have a deadline of their own.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    if let Some(region) = &config.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(url) = &config.endpoint_url {
        loader = loader.endpoint_url(url);
    }
    if let CredentialSource::Fixed(fixed) = &config.credentials {
        loader = loader.credentials_provider(Credentials::from_keys(
            &fixed.access_key_id,
            &fixed.secret_access_key,
            None,
        ));
    }
    let loaded = loader.load().await;
    if loaded.region().is_none() {
        return Err(Error::new(ErrorKind::InvalidInput, "open", "no AWS region is set")
            .advise("set `region` in the profile, or AWS_REGION"));
    }
    Ok(Client::new(&loaded))
}

//! What a run has made on servers that were there before it: removed when it has gone well. Only what bears the run's own
//! name is touched. After a failure it stays, to be looked at.

use aws_credential_types::Credentials;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::{BehaviorVersion, Region};
use aws_sdk_kinesis::error::DisplayErrorContext;

use super::Failure;

/// What a run calls its own.
#[derive(Debug, Clone)]
pub(super) struct Names {
    /// What its streams begin with.
    pub(super) prefix: String,
    /// Its schema; those of other kinds of bus begin with it.
    pub(super) schema: String,
}

/// A server that is not the run's own, and holds what it made.
#[derive(Debug, Clone)]
pub(super) enum Server {
    /// An emulator of Kinesis, by its endpoint.
    Kinesis(String),
    /// By its connection string.
    Postgres(String),
    /// By its address.
    Redis(String),
}

impl Server {
    /// Removes what is named so. Dropping the future leaves some of it.
    pub(super) async fn clear(&self, names: &Names) -> Result<(), Failure> {
        match self {
            Self::Kinesis(url) => streams(url, &names.prefix).await,
            Self::Postgres(url) => schemas(url, &names.schema).await,
            Self::Redis(url) => keys(url, &names.prefix).await,
        }
    }
}

async fn streams(url: &str, prefix: &str) -> Result<(), Failure> {
    let config = aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::from_keys("test", "test", None))
        .endpoint_url(url)
        .build();
    let client = Client::from_conf(config);
    let said = |e: &dyn std::error::Error| Failure::from(DisplayErrorContext(e).to_string());
    let mut token = None;
    loop {
        let page = client.list_streams().set_next_token(token).send().await.map_err(|e| said(&e))?;
        for stream in page.stream_names().iter().filter(|name| name.starts_with(prefix)) {
            client.delete_stream().stream_name(stream).send().await.map_err(|e| said(&e))?;
        }
        token = page.next_token;
        if token.is_none() {
            return Ok(());
        }
    }
}

async fn schemas(url: &str, schema: &str) -> Result<(), Failure> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    let connection = tokio::spawn(connection);
    let own = "SELECT quote_ident(nspname) FROM pg_namespace WHERE starts_with(nspname, $1)";
    for row in client.query(own, &[&schema]).await? {
        let name: String = row.get(0);
        client.batch_execute(&format!("DROP SCHEMA {name} CASCADE")).await?;
    }
    drop(client);
    // It ends with its client; what it has to say was said to that.
    let _ = connection.await;
    Ok(())
}

async fn keys(url: &str, prefix: &str) -> Result<(), Failure> {
    let mut server = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    let mut cursor = 0u64;
    loop {
        let (next, keys): (u64, Vec<String>) = redis::cmd("SCAN")
            .arg(cursor)
            .arg("MATCH")
            .arg(format!("{{{prefix}*"))
            .arg("COUNT")
            .arg(1_000)
            .query_async(&mut server)
            .await?;
        for key in keys {
            redis::cmd("DEL").arg(key).query_async::<()>(&mut server).await?;
        }
        cursor = next;
        if cursor == 0 {
            return Ok(());
        }
    }
}

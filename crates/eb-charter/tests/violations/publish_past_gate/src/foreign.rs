//! A bus of somebody else.

use async_nats::Client;

async fn foreign(client: Client, publisher: &Client) {
    let _ = client.publish("subject", "payload".into()).await;
    let _ = publisher.publish("subject", "payload".into()).await;
}

//! Topics, partitions and where keys land.

use eb_contract::{Effect, PartitionId, StartAt, Topic, partition_for};

use crate::Outcome;
use crate::bus::BusCase;
use crate::bus::order::{numbers_by_key, rises};
use crate::events::{key, record};
use crate::outcome::{ensure, ensure_eq, refused};

pub(crate) async fn a_missing_topic_is_not_found(case: &mut BusCase) -> Outcome {
    let there = case.topic("there").await?;
    let missing = Topic::new("not-there")?;
    let p0 = PartitionId(0);
    let (publisher, reader) = (case.publisher(), case.reader());
    let error = refused("publish", publisher.publish(&missing, record("k", 1)).await, "not_found")?;
    ensure_eq!(error.effect(), Effect::None, "the effect of a refused publish");
    let answers = publisher.publish_batch(&missing, vec![record("k", 1), record("j", 2)]).await;
    ensure_eq!(answers.len(), 2, "answers of a batch");
    // The second answer may also say that it was not tried.
    for (answer, codes) in answers.into_iter().zip([&["not_found"][..], &["not_found", "not_attempted"]]) {
        match answer {
            Ok(at) => return Err(crate::Failure::new(format!("published to a missing topic: {at}"))),
            Err(e) => ensure!(codes.contains(&e.kind().code()), "a batch to a missing topic answered {e}"),
        }
    }
    refused("probe", publisher.probe(&missing).await, "not_found")?;
    refused("partitions", reader.partitions(&missing).await, "not_found")?;
    refused("head", reader.head(&missing, p0).await, "not_found")?;
    for start in [StartAt::Earliest, StartAt::Latest, StartAt::Cut(eb_contract::Cut::Begin)] {
        refused("cursor", reader.cursor(&missing, p0, start).await, "not_found")?;
    }
    ensure!(!reader.topics().await?.contains(&missing), "asking for a topic made it");
    let acked = vec![case.publish(&there, record("k", 1)).await?];
    case.expect_topic(&there, &acked).await
}

pub(crate) async fn a_missing_partition_is_not_found(case: &mut BusCase) -> Outcome {
    let topic = case.topic("few").await?;
    case.publish(&topic, record("k", 1)).await?;
    let reader = case.reader();
    for id in [case.partitions, case.partitions + 1, u32::MAX] {
        let missing = PartitionId(id);
        refused("head", reader.head(&topic, missing).await, "not_found")?;
        refused("cursor", reader.cursor(&topic, missing, StartAt::Earliest).await, "not_found")?;
    }
    Ok(())
}

pub(crate) async fn topics_and_partitions_are_listed_in_order(case: &mut BusCase) -> Outcome {
    let mut made = Vec::new();
    for (name, partitions) in [("zeta", 1), ("alpha", 3), ("a.b_c-D9", 12), ("Alpha", 1)] {
        made.push((case.bus.create_topic(name, partitions).await?, partitions));
    }
    let listed = case.reader().topics().await?;
    ensure!(listed.windows(2).all(|w| w[0] < w[1]), "topics are not sorted, or listed twice: {listed:?}");
    for (topic, partitions) in made {
        ensure!(listed.contains(&topic), "{topic} is not listed");
        let described = case.reader().partitions(&topic).await?.partitions;
        let ids: Vec<_> = described.iter().map(|p| p.id.0).collect();
        ensure_eq!(ids, (0..partitions).collect::<Vec<_>>(), "the partitions of {topic}");
        let strange = described.iter().find(|p| p.closed || !p.parents.is_empty());
        ensure!(strange.is_none(), "a new partition that is closed or has parents: {strange:?}");
    }
    Ok(())
}

pub(crate) async fn creating_a_topic_again_needs_the_same_number(case: &mut BusCase) -> Outcome {
    let (topic, admin) = (Topic::new("again")?, case.admin());
    admin.create_topic(&topic, 2).await?;
    let before = case.reader().partitions(&topic).await?;
    let acked = vec![case.publish(&topic, record("k", 1)).await?];
    admin.create_topic(&topic, 2).await?;
    refused("create_topic with another number", admin.create_topic(&topic, 3).await, "already_exists")?;
    refused(
        "create_topic with no partitions",
        admin.create_topic(&Topic::new("zero")?, 0).await,
        "invalid_input",
    )?;
    ensure_eq!(case.reader().partitions(&topic).await?, before, "the partitions after asking again");
    case.expect_topic(&topic, &acked).await
}

pub(crate) async fn keys_land_by_the_partition_rule(case: &mut BusCase) -> Outcome {
    for (name, partitions) in [("one", 1), ("usual", case.partitions), ("more", case.partitions + 2)] {
        let topic = case.bus.create_topic(name, partitions).await?;
        let mut keys = case.odd_keys();
        keys.extend((0..30).map(|n| key(format!("merchant-{n}"))));
        let records =
            keys.iter().map(|k| eb_contract::PublishRecord::new(k.clone(), crate::events::envelope(0)));
        let acked = case.publish_batch(&topic, records.collect()).await?;
        for a in &acked {
            let k = &a.record.partition_key;
            ensure_eq!(
                a.at.partition_id,
                partition_for(k, partitions),
                "the partition of {k:?} of {partitions}"
            );
        }
        case.expect_topic(&topic, &acked).await?;
    }
    Ok(())
}

pub(crate) async fn every_partition_keeps_its_own_keys_in_order(case: &mut BusCase) -> Outcome {
    let topic = case.bus.create_topic("spread", case.partitions.max(4)).await?;
    let mut acked = Vec::new();
    for round in 0..10 {
        let batch = (0..24).map(|i| record(format!("k{}", i % 12), round * 3 + i / 12)).collect();
        acked.extend(case.publish_batch(&topic, batch).await?);
        acked.push(case.publish(&topic, record(format!("k{round}"), round * 3 + 2)).await?);
    }
    case.expect_topic(&topic, &acked).await?;
    let read = case.read_topic(&topic, &acked).await?;
    ensure!(
        read.values().filter(|r| !r.is_empty()).count() > 1,
        "twelve keys all landed in one partition of four"
    );
    for (partition, records) in &read {
        for (k, numbers) in numbers_by_key(records)? {
            ensure!(rises(&numbers), "the order of {k} in partition {partition}: {numbers:?}");
        }
    }
    Ok(())
}

pub(crate) async fn a_probe_says_whether_publishing_could_succeed(case: &mut BusCase) -> Outcome {
    let topic = case.topic("probe").await?;
    for _ in 0..3 {
        case.publisher().probe(&topic).await?;
    }
    // Probing leaves nothing behind.
    case.expect_topic(&topic, &[]).await?;
    let acked = vec![case.publish(&topic, record("k", 1)).await?];
    case.publisher().probe(&topic).await?;
    case.expect_topic(&topic, &acked).await
}

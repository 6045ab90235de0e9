//! Many watches at once, and lists that are sent in pieces.

use super::*;

const WATCHES: usize = 200;
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const WRITERS: usize = 4;
const CHANGES: usize = 25;

/// Creates and changes objects from several connections at once; the last to come is the one called `end`.
fn write(cluster: &Cluster) {
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            scope.spawn(move || {
                for n in 0..CHANGES {
                    cluster.create(MAPS, &map(&format!("m{writer}-{n}"), "1"));
                }
            });
        }
    });
    cluster.create(MAPS, &map("end", "1"));
}

#[test]
fn however_many_watch_all_see_everything_in_the_same_order() {
    let cluster = Cluster::start();
    let since = cluster.create(MAPS, &map("begin", "1")).resource_version().to_owned();
    let path = format!("{MAPS}?watch=true&resourceVersion={since}");
    // Every other one wants to see metadata alone.
    let clients = [cluster.client.clone(), cluster.client.with(&[("Accept", METADATA)])];
    let watches: Vec<_> = (0..WATCHES).map(|n| clients[n % 2].lines(&path).unwrap()).collect();
    write(&cluster);
    let list = read(&cluster.get(MAPS));
    let mut all: Vec<(i64, &str)> = list
        .array_at(&["items"])
        .iter()
        .map(|o| (o.resource_version().parse().unwrap(), o.name()))
        .filter(|(revision, _)| *revision > since.parse().unwrap())
        .collect();
    all.sort_unstable();
    assert_eq!(all.len(), WRITERS * CHANGES + 1);
    for (n, mut watch) in watches.into_iter().enumerate() {
        for (revision, name) in &all {
            let line = watch.next_line().unwrap().expect("an event");
            let event = api::json::decode(line.as_bytes()).unwrap().value;
            let object = event.get("object");
            assert_eq!(object.kind(), ["ConfigMap", "PartialObjectMetadata"][n % 2]);
            assert_eq!(
                (event.str_at(&["type"]), object.name(), object.resource_version()),
                ("ADDED", *name, revision.to_string().as_str())
            );
        }
    }
}

#[test]
fn lists_are_the_same_however_they_are_sent() {
    let cluster = Cluster::start();
    let value = "x".repeat(30_000);
    for n in 0..20 {
        cluster.create(MAPS, &map(&format!("m{n:02}"), &value));
    }
    let whole = cluster.get(MAPS);
    assert!(whole.body.len() > 600_000 && whole.body.ends_with("}]}\n"));
    let list = read(&whole);
    assert_eq!((list.kind(), list.array_at(&["items"]).len()), ("ConfigMapList", 20));
    let mut paged = Vec::new();
    for item in list.array_at(&["items"]) {
        assert!(item.kind().is_empty() && item.str_at(&["data", "k"]) == value, "{}", item.name());
        paged.push(item.clone());
    }
    let mut token = String::new();
    for page in paged.chunks(7) {
        let answer = read(&cluster.get(&format!("{MAPS}?limit=7&continue={token}")));
        assert_eq!(answer.array_at(&["items"]), page);
        answer.str_at(&["metadata", "continue"]).clone_into(&mut token);
    }
    assert_eq!(token, "");
    let empty = read(&cluster.get(&format!("{MAPS}?labelSelector=none%3Dsuch")));
    assert_eq!(empty.get("items"), &Value::Array(Vec::new()));
    let metrics = cluster.get("/metrics").body;
    let sizes = metrics
        .lines()
        .filter(|l| l.starts_with("apiserver_response_sizes_sum") && l.contains("resource=\"configmaps\""))
        .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
        .sum::<f64>();
    assert!(sizes > 2.0 * 600_000.0, "{sizes}");
}

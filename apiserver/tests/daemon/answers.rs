//! Requests, and what kube-apiserver v1.36.2 answers to them. See `answers/README.md` beside this folder.

#[path = "answers/compare.rs"]
mod compare;
#[path = "answers/file.rs"]
mod file;
#[path = "answers/request.rs"]
mod request;

use std::path::Path;

use super::*;
use file::File;
use request::Sender;

/// Names a server to record from: its port and the folder of its certificates.
const RECORD: &str = "ANSWERS_FROM";

#[test]
fn answers_are_those_of_upstream() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/answers");
    let mut files = File::read_all(&folder).unwrap();
    assert!(!files.is_empty());
    if let Ok(from) = std::env::var(RECORD) {
        let (port, pki) = from.split_once(':').unwrap();
        let client = Client::new(&Pki::at(Path::new(pki)), port.parse().unwrap()).unwrap();
        for file in &mut files {
            file.record(&Sender::new(client.clone())).unwrap();
        }
        return;
    }
    let flags = ["--allow-privileged=true", "--enable-admission-plugins=NodeRestriction"];
    let mut differences = Vec::new();
    let mut cases = 0;
    for file in &files {
        // Every file begins with an empty etcd.
        let cluster = Cluster::start_with(|_| flags.map(str::to_owned).to_vec());
        let sender = Sender::new(cluster.client.clone());
        cases += file.len();
        differences.extend(file.check(&sender).unwrap());
    }
    let told = differences.join("\n");
    assert!(differences.is_empty(), "{} differences in {cases} cases:\n{told}", differences.len());
}

//! Packet rules and connection tracking in a network namespace of their own. Without root there is nothing to test.

use std::io;
use std::net::UdpSocket;
use std::process::Command;

use linux::conntrack::Conntrack;
use linux::iptables::{Error, Family, Flavour, HINT_CHAIN, Iptables, Position, Restore};
use linux::netns;

/// A namespace that is removed at the end, whatever happens.
struct Namespace(String);

impl Namespace {
    fn new(purpose: &str) -> Option<Self> {
        let root = nix::unistd::geteuid().is_root();
        let name = format!("linux-{purpose}-{}", std::process::id());
        root.then(|| netns::create(&name).map(|_| Self(name)).expect("root may make namespaces"))
    }

    fn run<T: Send + 'static>(&self, work: impl AsyncFnOnce() -> T + Send + 'static) -> T {
        let inside = move || -> io::Result<T> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status()?.success());
            Ok(runtime.block_on(work()))
        };
        netns::within(&netns::path(&self.0), inside).expect("work in the namespace")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        netns::delete(&self.0).expect("remove the namespace");
    }
}

#[test]
fn rules_are_restored_saved_and_changed_in_the_flavour_of_the_hint() {
    let Some(namespace) = Namespace::new("rules") else { return };
    namespace
        .run(async || -> Result<(), Error> {
            let legacy = Iptables::new(Family::V4, Flavour::Legacy);
            assert!(legacy.ensure_chain("mangle", HINT_CHAIN).await?);
            assert!(!legacy.ensure_chain("mangle", HINT_CHAIN).await?);
            assert_eq!(Iptables::detect(Family::V4).await, legacy);
            legacy.restore("*nat\n:MINE - [0:0]\n-A MINE -j RETURN\nCOMMIT\n", Restore::default()).await?;
            assert!(legacy.save("nat").await?.contains("-A MINE -j RETURN"));
            let rule = ["-m", "comment", "--comment", "to mine", "-j", "MINE"];
            assert!(legacy.ensure_rule(Position::Append, "nat", "OUTPUT", &rule).await?);
            assert!(!legacy.ensure_rule(Position::Append, "nat", "OUTPUT", &rule).await?);
            legacy.delete_rule("nat", "OUTPUT", &rule).await?;
            assert!(!legacy.rule_exists("nat", "OUTPUT", &rule).await?);
            legacy.delete_chain("nat", "MINE").await?;
            assert!(!legacy.chain_exists("nat", "MINE").await?);
            let refused = legacy.restore("*nat\n-A NOWHERE -j RETURN\nCOMMIT\n", Restore::default()).await;
            assert!(matches!(refused, Err(Error::Failed { .. })));
            Ok(())
        })
        .expect("iptables works in a namespace");
}

#[test]
fn tracked_flows_are_listed_and_deleted() {
    let Some(namespace) = Namespace::new("flows") else { return };
    let (before, deleted, after) = namespace.run(async || {
        let iptables = Iptables::new(Family::V4, Flavour::Legacy);
        // Connections are tracked only where some rule asks for it.
        let rule = ["-m", "conntrack", "--ctstate", "NEW", "-j", "ACCEPT"];
        iptables.ensure_rule(Position::Append, "filter", "OUTPUT", &rule).await.expect("a tracking rule");
        let server = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let client = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let port = server.local_addr().expect("address").port();
        client.send_to(b"x", ("127.0.0.1", port)).expect("send");
        let mut conntrack = Conntrack::open().expect("netlink");
        let to_server = |flow: &linux::conntrack::Flow| flow.original.destination_port == port;
        let before = conntrack.flows(false).expect("dump").into_iter().filter(to_server).count();
        let deleted = conntrack.delete_where(false, to_server).expect("delete");
        let after = conntrack.flows(false).expect("dump").into_iter().filter(to_server).count();
        (before, deleted, after)
    });
    assert_eq!((before, deleted, after), (1, 1, 0));
}

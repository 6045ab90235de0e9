//! The hosts plug-in: names from a file in the form of /etc/hosts, and from lines of the Corefile.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::corefile::absolute;

/// Addresses by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hosts(HashMap<String, Vec<IpAddr>>);

impl Hosts {
    /// Reads lines of an address and its names.
    pub(crate) fn parse(text: &str) -> Self {
        let mut hosts = Self::default();
        for line in text.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let Some(ip) = words.next().and_then(|w| w.parse::<IpAddr>().ok()) else { continue };
            for name in words {
                hosts.0.entry(absolute(name)).or_default().push(ip);
            }
        }
        hosts
    }

    /// The addresses of a name.
    pub(crate) fn addresses(&self, name: &str) -> Option<&[IpAddr]> {
        self.0.get(name).map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_files_are_read() {
        let hosts =
            Hosts::parse("# nodes\n192.0.2.1 Node1 n1.example # first\nnonsense\n2001:db8::1 node1\n");
        assert_eq!(hosts.addresses("node1.").unwrap().len(), 2);
        assert_eq!(hosts.addresses("n1.example.").unwrap().len(), 1);
        assert!(hosts.addresses("first.").is_none());
    }
}

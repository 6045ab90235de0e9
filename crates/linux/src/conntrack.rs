//! Deleting tracked connections by netlink, so that stale UDP flows do not stick to endpoints that are gone.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, setsockopt,
    socket, sockopt,
};
use nix::sys::time::TimeVal;

const SUBSYSTEM_CTNETLINK: u16 = 1 << 8;
const MSG_GET: u16 = SUBSYSTEM_CTNETLINK | 1;
const MSG_DELETE: u16 = SUBSYSTEM_CTNETLINK | 2;
const FLAG_REQUEST: u16 = 0x1;
const FLAG_ACK: u16 = 0x4;
const FLAG_DUMP: u16 = 0x300;
const TYPE_ERROR: u16 = 2;
const TYPE_DONE: u16 = 3;
const ATTR_TUPLE_ORIG: u16 = 1;
const ATTR_TUPLE_REPLY: u16 = 2;
const ATTR_ZONE: u16 = 18;

const HEADERS: usize = 16 + 4;

/// One direction of a tracked connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple {
    /// Where packets come from.
    pub source: IpAddr,
    /// Where packets go to.
    pub destination: IpAddr,
    /// The IP protocol number: 6 TCP, 17 UDP, 132 SCTP.
    pub protocol: u8,
    /// The source port, 0 where the protocol has none.
    pub source_port: u16,
    /// The destination port, 0 where the protocol has none.
    pub destination_port: u16,
}

/// A tracked connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// As the client sent it.
    pub original: Tuple,
    /// As the answers come back: with DNAT its source is the endpoint.
    pub reply: Tuple,
    /// The attributes that name it to the kernel.
    identity: Vec<u8>,
}

/// A netlink connection to the connection tracker of the current network namespace.
pub struct Conntrack {
    socket: OwnedFd,
    sequence: u32,
}

impl Conntrack {
    /// Opens the connection; needs `CAP_NET_ADMIN`.
    pub fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(5, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// All flows of a family that are tracked now. Blocks for as long as the kernel takes to list them.
    pub fn flows(&mut self, v6: bool) -> io::Result<Vec<Flow>> {
        self.send(MSG_GET, FLAG_REQUEST | FLAG_DUMP, v6, &[])?;
        let mut flows = Vec::new();
        self.receive(|body| flows.extend(parse_flow(body)))?;
        Ok(flows)
    }

    /// Deletes the flows of a family that `matches` picks, and says how many. One that is gone already is no error.
    pub fn delete_where(&mut self, v6: bool, matches: impl Fn(&Flow) -> bool) -> io::Result<usize> {
        let mut deleted = 0;
        for flow in self.flows(v6)?.iter().filter(|flow| matches(flow)) {
            self.send(MSG_DELETE, FLAG_REQUEST | FLAG_ACK, v6, &flow.identity)?;
            match self.receive(|_| {}) {
                Ok(()) => deleted += 1,
                Err(error) if error.raw_os_error() == Some(nix::libc::ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(deleted)
    }

    fn send(&mut self, kind: u16, flags: u16, v6: bool, attributes: &[u8]) -> io::Result<()> {
        self.sequence += 1;
        let family = if v6 { nix::libc::AF_INET6 } else { nix::libc::AF_INET };
        let mut message = Vec::with_capacity(HEADERS + attributes.len());
        message.extend(((HEADERS + attributes.len()) as u32).to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend(0u32.to_ne_bytes());
        message.extend([family as u8, 0, 0, 0]);
        message.extend(attributes);
        sendto(self.socket.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        Ok(())
    }

    /// Reads answers to the last message until the kernel says that they are complete.
    fn receive(&self, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let n = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            let mut rest = &buffer[..n];
            while let Some((kind, sequence, body, next)) = split_message(rest) {
                rest = next;
                match kind {
                    _ if sequence != self.sequence => {}
                    TYPE_DONE => return Ok(()),
                    TYPE_ERROR => {
                        let code = body.get(..4).map_or(0, |b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
                        return if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) };
                    }
                    _ => each(body),
                }
            }
        }
    }
}

fn split_message(bytes: &[u8]) -> Option<(u16, u32, &[u8], &[u8])> {
    let head = bytes.get(..16)?;
    let len = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
    let kind = u16::from_ne_bytes([head[4], head[5]]);
    let sequence = u32::from_ne_bytes([head[8], head[9], head[10], head[11]]);
    let body = bytes.get(16..len)?;
    Some((kind, sequence, body, bytes.get(len.next_multiple_of(4)..).unwrap_or_default()))
}

/// The attributes of a message or of another attribute: type without flags, whole attribute, payload.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8], &[u8])> {
    std::iter::from_fn(move || {
        let head = bytes.get(..4)?;
        let len = u16::from_ne_bytes([head[0], head[1]]) as usize;
        let kind = u16::from_ne_bytes([head[2], head[3]]) & 0x3fff;
        let whole = bytes.get(..len)?;
        let payload = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, whole, payload))
    })
}

fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(k, ..)| *k == kind).map(|(.., payload)| payload)
}

/// Reads a flow from the payload of a message, which starts with the netfilter header.
fn parse_flow(body: &[u8]) -> Option<Flow> {
    let body = body.get(4..)?;
    let mut identity = Vec::new();
    for (kind, whole, _) in attributes(body) {
        if kind == ATTR_TUPLE_ORIG || kind == ATTR_ZONE {
            identity.extend(whole);
            identity.resize(identity.len().next_multiple_of(4), 0);
        }
    }
    Some(Flow {
        original: parse_tuple(find(body, ATTR_TUPLE_ORIG)?)?,
        reply: parse_tuple(find(body, ATTR_TUPLE_REPLY)?)?,
        identity,
    })
}

fn parse_tuple(bytes: &[u8]) -> Option<Tuple> {
    let ip = find(bytes, 1)?;
    let protocol = find(bytes, 2)?;
    let port = |kind| find(protocol, kind).map_or(0, |b| b.try_into().map_or(0, u16::from_be_bytes));
    Some(Tuple {
        source: address(find(ip, 1).or_else(|| find(ip, 3))?)?,
        destination: address(find(ip, 2).or_else(|| find(ip, 4))?)?,
        protocol: *find(protocol, 1)?.first()?,
        source_port: port(2),
        destination_port: port(3),
    })
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NESTED: u16 = 0x8000;

    fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(((payload.len() + 4) as u16).to_ne_bytes());
        out.extend(kind.to_ne_bytes());
        out.extend(payload);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    fn tuple(kind: u16, source: [u8; 4], destination: [u8; 4], ports: (u16, u16)) -> Vec<u8> {
        let ip = [attribute(1, &source), attribute(2, &destination)].concat();
        let protocol =
            [attribute(1, &[17]), attribute(2, &ports.0.to_be_bytes()), attribute(3, &ports.1.to_be_bytes())]
                .concat();
        attribute(kind | NESTED, &[attribute(1 | NESTED, &ip), attribute(2 | NESTED, &protocol)].concat())
    }

    #[test]
    fn a_flow_is_read_and_named_by_its_original_tuple_and_zone() {
        let original = tuple(ATTR_TUPLE_ORIG, [10, 42, 0, 5], [10, 43, 0, 10], (4000, 53));
        let reply = tuple(ATTR_TUPLE_REPLY, [10, 42, 0, 9], [10, 42, 0, 5], (5353, 4000));
        let zone = attribute(ATTR_ZONE, &[0, 7]);
        let body = [vec![2, 0, 0, 0], original.clone(), reply, attribute(3, &[0; 4]), zone.clone()].concat();
        let flow = parse_flow(&body).unwrap();
        assert_eq!(flow.original.destination, IpAddr::from([10, 43, 0, 10]));
        assert_eq!(flow.original.destination_port, 53);
        assert_eq!(flow.reply.source, IpAddr::from([10, 42, 0, 9]));
        assert_eq!(flow.original.protocol, 17);
        assert_eq!(flow.identity, [original, zone].concat());
    }

    #[test]
    fn truncated_messages_are_ignored() {
        assert!(split_message(&[0; 7]).is_none());
        assert!(parse_flow(&[2, 0]).is_none());
        assert!(parse_flow(&[2, 0, 0, 0, 255, 255, 1, 0]).is_none());
        assert_eq!(attributes(&[0, 0, 0, 0]).count(), 0);
    }
}

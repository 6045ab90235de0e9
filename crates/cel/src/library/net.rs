//! Addresses and networks.

use std::fmt;
use std::net::IpAddr;

use super::call::{Builtin, Call, fail, no_overload};
use crate::value::{Outcome, Val};

/// A network: an address, not necessarily the first, and the bits that its members share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    pub(crate) bits: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl Cidr {
    /// The address with the bits cleared that members do not share.
    fn network(&self, address: IpAddr) -> IpAddr {
        let host = |width: u8| u32::from(width - self.bits.min(width));
        match address {
            IpAddr::V4(a) => IpAddr::V4((u32::from(a) & u32::MAX.checked_shl(host(32)).unwrap_or(0)).into()),
            IpAddr::V6(a) => {
                IpAddr::V6((u128::from(a) & u128::MAX.checked_shl(host(128)).unwrap_or(0)).into())
            }
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && self.network(address) == self.network(self.address)
    }
}

/// Reads an address; the error is upstream's message.
fn parse_ip(text: &str) -> Result<IpAddr, String> {
    if text.contains('%')
        && text.split('%').next().is_some_and(|a| a.parse::<IpAddr>().is_ok_and(|a| a.is_ipv6()))
    {
        return Err(format!("IP address {text:?} with zone value is not allowed"));
    }
    let address = text.parse::<IpAddr>().map_err(|_| {
        let reason = if text.contains(['.', ':']) { "invalid IP address" } else { "unable to parse IP" };
        format!(
            "IP Address {text:?} parse error during conversion from string: ParseAddr({text:?}): {reason}"
        )
    })?;
    match address {
        IpAddr::V6(a) if a.to_ipv4_mapped().is_some() => {
            Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed"))
        }
        _ => Ok(address),
    }
}

/// Reads a network; the error is upstream's message.
fn parse_cidr(text: &str) -> Result<Cidr, String> {
    let wrap = |reason: &str| {
        let parse = format!("netip.ParsePrefix({text:?}): {reason}");
        format!("network address parse error during conversion from string: {parse}")
    };
    let (address, bits) = text.rsplit_once('/').ok_or_else(|| wrap("no '/'"))?;
    if address.contains('%') {
        return Err(wrap("IPv6 zones cannot be present in a prefix"));
    }
    let address: IpAddr = address.parse().map_err(|_| wrap("unable to parse IP"))?;
    let plain = !bits.is_empty()
        && bits.bytes().all(|b| b.is_ascii_digit())
        && (bits.len() == 1 || !bits.starts_with('0'));
    let bits: u8 = bits
        .parse()
        .ok()
        .filter(|_| plain)
        .ok_or_else(|| wrap(&format!("bad bits after slash: {bits:?}")))?;
    if bits > if address.is_ipv4() { 32 } else { 128 } {
        return Err(wrap("prefix length out of range"));
    }
    match address {
        IpAddr::V6(a) if a.to_ipv4_mapped().is_some() => {
            Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed"))
        }
        _ => Ok(Cidr { address, bits }),
    }
}

pub(crate) fn find(name: &str) -> Option<Builtin> {
    Some(match name {
        "ip" => |_, args| match args {
            [Val::String(s)] => parse_ip(s).map_or_else(fail, |ip| Ok(Val::Ip(ip))),
            [Val::Cidr(c)] => Ok(Val::Ip(c.address)),
            _ => no_overload(),
        },
        "isIP" => |_, args| text(args, |s| parse_ip(s).is_ok()),
        "ip.isCanonical" => |_, args| match args {
            [Val::String(s)] => parse_ip(s).map_or_else(fail, |ip| Ok(Val::Bool(ip.to_string() == **s))),
            _ => no_overload(),
        },
        "family" => |_, args| match args {
            [Val::Ip(ip)] => Ok(Val::Int(if ip.is_ipv4() { 4 } else { 6 })),
            _ => no_overload(),
        },
        "isUnspecified" => |_, args| address(args, |ip| ip.is_unspecified()),
        "isLoopback" => |_, args| address(args, |ip| ip.is_loopback()),
        "isLinkLocalMulticast" => |_, args| address(args, link_local_multicast),
        "isLinkLocalUnicast" => |_, args| address(args, link_local),
        "isGlobalUnicast" => |_, args| {
            address(args, |ip| {
                let broadcast = matches!(ip, IpAddr::V4(a) if a.is_broadcast());
                !(broadcast || ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || link_local(ip))
            })
        },
        "cidr" => |_, args| match args {
            [Val::String(s)] => parse_cidr(s).map_or_else(
                |e| fail(format!("network address parse error during conversion from string: {e}")),
                |c| Ok(Val::Cidr(c)),
            ),
            _ => no_overload(),
        },
        "isCIDR" => |_, args| text(args, |s| parse_cidr(s).is_ok()),
        "containsIP" => contains_ip,
        "containsCIDR" => contains_cidr,
        "prefixLength" => |_, args| match args {
            [Val::Cidr(c)] => Ok(Val::Int(i64::from(c.bits))),
            _ => no_overload(),
        },
        "masked" => |_, args| match args {
            [Val::Cidr(c)] => Ok(Val::Cidr(Cidr { address: c.network(c.address), ..*c })),
            _ => no_overload(),
        },
        _ => return None,
    })
}

fn link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(a) => a.is_link_local(),
        IpAddr::V6(a) => a.is_unicast_link_local(),
    }
}

fn link_local_multicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(a) => a.octets()[..3] == [224, 0, 0],
        IpAddr::V6(a) => a.segments()[0] & 0xff0f == 0xff02,
    }
}

fn text<'a>(args: &[Val<'a>], test: fn(&str) -> bool) -> Outcome<'a> {
    match args {
        [Val::String(s)] => Ok(Val::Bool(test(s))),
        _ => no_overload(),
    }
}

fn address<'a>(args: &[Val<'a>], test: fn(IpAddr) -> bool) -> Outcome<'a> {
    match args {
        [Val::Ip(ip)] => Ok(Val::Bool(test(*ip))),
        _ => no_overload(),
    }
}

fn contains_ip<'a>(_: &mut Call<'_>, args: &[Val<'a>]) -> Outcome<'a> {
    let (cidr, ip) = match args {
        [Val::Cidr(c), Val::Ip(ip)] => (c, *ip),
        [Val::Cidr(c), Val::String(s)] => match parse_ip(s) {
            Ok(ip) => (c, ip),
            Err(e) => return fail(e),
        },
        _ => return no_overload(),
    };
    Ok(Val::Bool(cidr.contains(ip)))
}

fn contains_cidr<'a>(_: &mut Call<'_>, args: &[Val<'a>]) -> Outcome<'a> {
    let (cidr, other) = match args {
        [Val::Cidr(c), Val::Cidr(other)] => (c, *other),
        [Val::Cidr(c), Val::String(s)] => match parse_cidr(s) {
            Ok(other) => (c, other),
            Err(e) => return fail(format!("network address parse error during conversion from string: {e}")),
        },
        _ => return no_overload(),
    };
    Ok(Val::Bool(cidr.contains(other.address) && cidr.bits <= other.bits))
}

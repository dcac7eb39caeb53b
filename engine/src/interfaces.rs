//! The addresses of this host that others may reach: what the gateway tells engines and clients.

use std::net::{IpAddr, SocketAddr};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use crate::error::Error;

/// All non-loopback addresses of interfaces that are up, IPv4 first; only `interface`'s if one is given. A host with
/// nothing but loopback answers with loopback: a laptop without a network still runs a world.
///
/// # Errors
/// [`Error::Interface`] if `interface` does not exist or has no address.
pub fn addresses(interface: Option<&str>) -> Result<Vec<IpAddr>, Error> {
    let mut found = Vec::new();
    let mut names = Vec::new();
    for entry in getifaddrs().map_err(|e| Error::io("list network interfaces")(e.into()))? {
        let Some(ip) = entry.address.as_ref().and_then(ip_of) else {
            continue;
        };
        names.push(entry.interface_name.clone());
        let wanted = match interface {
            Some(name) => entry.interface_name == name,
            None => entry.flags.contains(InterfaceFlags::IFF_UP) && is_reachable(&ip),
        };
        if wanted {
            found.push(ip);
        }
    }
    if let (Some(given), true) = (interface, found.is_empty()) {
        names.sort();
        names.dedup();
        return Err(Error::Interface {
            given: given.to_owned(),
            there: names.join(", "),
        });
    }
    if found.is_empty() {
        found.push(IpAddr::from([127, 0, 0, 1]));
    }
    found.sort_by_key(|ip| ip.is_ipv6());
    Ok(found)
}

fn ip_of(address: &nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::from(a.ip())))
}

/// Link-local IPv6 addresses need a scope that has no meaning on another host.
fn is_reachable(ip: &IpAddr) -> bool {
    !ip.is_loopback()
        && match ip {
            IpAddr::V4(v4) => !v4.is_link_local(),
            IpAddr::V6(v6) => (v6.segments()[0] & 0xffc0) != 0xfe80,
        }
}

/// The addresses to give away for a listener: its own, or every interface's if it listens on all.
///
/// # Errors
/// As [`addresses`].
pub fn advertised(listening: SocketAddr, interface: Option<&str>) -> Result<Vec<SocketAddr>, Error> {
    if !listening.ip().is_unspecified() {
        return Ok(vec![listening]);
    }
    let ips = addresses(interface)?;
    let same_family = |ip: &IpAddr| listening.is_ipv6() || ip.is_ipv4();
    Ok(ips
        .into_iter()
        .filter(same_family)
        .map(|ip| SocketAddr::new(ip, listening.port()))
        .collect())
}

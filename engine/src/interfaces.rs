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

/// An address of this host and the mask of its subnet.
#[derive(Clone, Copy, Debug)]
struct Own {
    ip: IpAddr,
    mask: IpAddr,
}

/// A gateway's addresses in the order in which this host should try them: those in a subnet of its own first, and last those
/// that it has itself, unless it is the gateway's host: every host of a cluster may have the same address on a bridge for
/// containers or virtual machines.
#[must_use]
pub fn nearest_first(addresses: &[SocketAddr], is_gateway_host: bool) -> Vec<SocketAddr> {
    // Without a list of interfaces every order is as good.
    let entries = getifaddrs().into_iter().flatten();
    let own: Vec<Own> = entries
        .filter(|entry| entry.flags.contains(InterfaceFlags::IFF_UP))
        .filter_map(|entry| {
            Some(Own {
                ip: entry.address.as_ref().and_then(ip_of)?,
                mask: entry.netmask.as_ref().and_then(ip_of)?,
            })
        })
        .collect();
    sorted(addresses, &own, is_gateway_host)
}

fn sorted(addresses: &[SocketAddr], own: &[Own], is_gateway_host: bool) -> Vec<SocketAddr> {
    let distance = |address: &SocketAddr| {
        let ip = address.ip();
        if own.iter().any(|own| own.ip == ip) {
            return if is_gateway_host { 0 } else { 3 };
        }
        if own.iter().any(|own| in_one_subnet(ip, own)) {
            1
        } else {
            2
        }
    };
    let mut sorted = addresses.to_vec();
    sorted.sort_by_key(distance);
    sorted
}

fn in_one_subnet(ip: IpAddr, own: &Own) -> bool {
    match (ip, own.ip, own.mask) {
        (IpAddr::V4(a), IpAddr::V4(b), IpAddr::V4(mask)) => {
            a.to_bits() & mask.to_bits() == b.to_bits() & mask.to_bits()
        }
        (IpAddr::V6(a), IpAddr::V6(b), IpAddr::V6(mask)) => {
            a.to_bits() & mask.to_bits() == b.to_bits() & mask.to_bits()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_subnet_comes_first_and_a_twin_of_our_own_address_last() {
        let own = |ip: &str, mask: &str| Own {
            ip: ip.parse().expect("an address"),
            mask: mask.parse().expect("a mask"),
        };
        let ours = [
            own("172.17.0.1", "255.255.0.0"),
            own("10.77.0.2", "255.255.255.0"),
        ];
        let given: Vec<SocketAddr> = ["172.17.0.1:7", "192.168.9.1:7", "10.77.0.1:7"]
            .iter()
            .map(|text| text.parse().expect("an address"))
            .collect();
        let order = |same| -> Vec<usize> {
            let sorted = sorted(&given, &ours, same);
            sorted
                .iter()
                .map(|one| {
                    given
                        .iter()
                        .position(|other| other == one)
                        .expect("the same ones")
                })
                .collect()
        };
        assert_eq!(order(false), [2, 1, 0]);
        assert_eq!(order(true), [0, 2, 1]);
    }
}

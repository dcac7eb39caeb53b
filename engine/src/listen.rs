//! Where the gateway listens for clients and for engines of other hosts: `--listen`.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;

use crate::error::Error;

/// An address and the ports that may be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    ip: IpAddr,
    ports: RangeInclusive<u16>,
}

impl Listen {
    /// `ADDR:PORT` or `ADDR:LOW-HIGH`; without it all interfaces and any port.
    ///
    /// # Errors
    /// [`Error::Listen`].
    pub fn parse(given: Option<&str>) -> Result<Self, Error> {
        let text = given.unwrap_or("0.0.0.0:0");
        parse(text).ok_or_else(|| Error::Listen {
            given: text.to_owned(),
        })
    }

    /// Takes the first port that is free.
    ///
    /// # Errors
    /// [`Error::Io`] of the last port tried.
    pub fn bind(&self) -> Result<TcpListener, Error> {
        let mut failed = io::ErrorKind::AddrNotAvailable.into();
        for port in self.ports.clone() {
            match TcpListener::bind(SocketAddr::new(self.ip, port)) {
                Ok(listener) => return Ok(listener),
                Err(error) => failed = error,
            }
        }
        let (low, high) = (self.ports.start(), self.ports.end());
        let all = if low == high {
            String::new()
        } else {
            format!("-{high}")
        };
        Err(Error::io(format!("bind {}{all}", SocketAddr::new(self.ip, *low)))(failed))
    }
}

fn parse(text: &str) -> Option<Listen> {
    let (address, ports) = text.rsplit_once(':')?;
    let (low, high) = ports.split_once('-').unwrap_or((ports, ports));
    // Brackets of IPv6 addresses are a matter of the whole.
    let first: SocketAddr = format!("{address}:{low}").parse().ok()?;
    let high: u16 = high.parse().ok()?;
    let alone = first.port() == high;
    (alone || (0 < first.port() && first.port() < high)).then(|| Listen {
        ip: first.ip(),
        ports: first.port()..=high,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_with_a_port_or_a_range_of_them() {
        let parsed = |text| parse(text).map(|listen| (listen.ip.to_string(), listen.ports));
        assert_eq!(parsed("10.0.0.1:0"), Some(("10.0.0.1".to_owned(), 0..=0)));
        assert_eq!(
            parsed("0.0.0.0:7000-7009"),
            Some(("0.0.0.0".to_owned(), 7000..=7009))
        );
        assert_eq!(parsed("[::]:7000-7001"), Some(("::".to_owned(), 7000..=7001)));
        for bad in [
            "",
            "7000",
            "h1:7000",
            "0.0.0.0:9-8",
            "0.0.0.0:0-9",
            "0.0.0.0:1-70000",
            "0.0.0.0:-",
        ] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_taken_port_is_passed_over_and_a_full_range_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = taken.local_addr().expect("an address").port();
        let only = Listen {
            ip: IpAddr::from([127, 0, 0, 1]),
            ports: port..=port,
        };
        let words = crate::error::chain(&only.bind().expect_err("it is taken"));
        assert!(words.contains(&port.to_string()), "{words}");
        let more = Listen {
            ports: port..=u16::MAX,
            ..only
        };
        if port < u16::MAX {
            let bound = more.bind().expect("one of them is free");
            assert!(bound.local_addr().expect("an address").port() > port);
        }
    }
}

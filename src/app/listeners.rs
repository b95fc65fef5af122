//! The two addresses, bound.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use super::StartError;
use crate::config::{ListenAddress, Settings};

/// Bound, but not answering yet: until then connections wait in the kernel's queue.
pub(super) struct Listeners {
    pub(super) calls: TcpListener,
    /// `None` when one address serves both.
    pub(super) administration: Option<TcpListener>,
    pub(super) listen: SocketAddr,
    pub(super) admin_listen: SocketAddr,
}

impl Listeners {
    pub(super) async fn bind(settings: &Settings) -> Result<Self, StartError> {
        // Port 0 twice is two free ports, not one address.
        let one_address = settings.listen == settings.admin_listen && settings.listen.port() != 0;
        let calls = bind(&settings.listen).await?;
        let administration = if one_address { None } else { Some(bind_second(settings).await?) };
        let listen = local_address(&calls, &settings.listen)?;
        let admin_listen = match &administration {
            Some(listener) => local_address(listener, &settings.admin_listen)?,
            None => listen,
        };
        Ok(Self { calls, administration, listen, admin_listen })
    }
}

/// The admin address, while the other one is bound.
async fn bind_second(settings: &Settings) -> Result<TcpListener, StartError> {
    let (calls, admin) = (&settings.listen, &settings.admin_listen);
    bind(admin).await.map_err(|error| match error {
        // An address of all interfaces holds its port on each of them.
        StartError::Listen { address, error, .. }
            if error.kind() == std::io::ErrorKind::AddrInUse && calls.port() == admin.port() =>
        {
            let hint = "; this gateway itself listens on that port, at TOLLGATE_LISTEN: choose another port, or give both \
                the same address to serve everything there";
            StartError::Listen { address, error, hint }
        }
        other => other,
    })
}

async fn bind(address: &ListenAddress) -> Result<TcpListener, StartError> {
    let bound = TcpListener::bind((address.host(), address.port())).await;
    bound.map_err(|error| listen_error(address, error))
}

fn local_address(listener: &TcpListener, address: &ListenAddress) -> Result<SocketAddr, StartError> {
    listener.local_addr().map_err(|error| listen_error(address, error))
}

fn listen_error(address: &ListenAddress, error: std::io::Error) -> StartError {
    let hint = match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            "; something else listens there: stop it, or choose another address with TOLLGATE_LISTEN or \
             TOLLGATE_ADMIN_LISTEN"
        }
        std::io::ErrorKind::PermissionDenied => "; ports below 1024 need privileges: choose a higher one",
        _ => "",
    };
    StartError::Listen { address: address.to_string(), error, hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_the_gateway_takes_from_itself_is_told_as_such() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let address = |host: &str| ListenAddress::new(&format!("{host}:{port}")).unwrap();
        let settings =
            Settings { listen: address("0.0.0.0"), admin_listen: address("127.0.0.1"), ..Settings::default() };
        let error = Listeners::bind(&settings).await.err().unwrap().to_string();
        assert!(error.contains(&format!("127.0.0.1:{port}")) && error.contains("this gateway itself"), "{error}");
    }
}

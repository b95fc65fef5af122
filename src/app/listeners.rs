//! The two addresses, bound.

use std::{
    net::SocketAddr,
    os::fd::{AsFd as _, OwnedFd},
};

use tokio::net::{TcpListener, lookup_host};

use super::{StartError, handover::Succession};
use crate::config::{ListenAddress, Settings};

/// Connections that may wait in the kernel's queue, as far as the system allows: all who come while a gateway takes over.
const QUEUE: i32 = 4096;

/// Bound, but not answering yet: until then connections wait in the kernel's queue.
pub(super) struct Listeners {
    pub(super) calls: TcpListener,
    /// `None` when one address serves both.
    pub(super) administration: Option<TcpListener>,
    pub(super) listen: SocketAddr,
    pub(super) admin_listen: SocketAddr,
    /// Their queues stay when this process closes them.
    pub(super) kept_elsewhere: bool,
}

impl Listeners {
    pub(super) async fn bind(settings: &Settings, mut succession: Succession) -> Result<Self, StartError> {
        // Port 0 twice is two free ports, not one address.
        let one_address = settings.listen == settings.admin_listen && settings.listen.port() != 0;
        let calls = bind(&settings.listen, &mut succession).await?;
        let administration = if one_address { None } else { Some(bind_second(settings, &mut succession).await?) };
        let listen = local_address(&calls, &settings.listen)?;
        let admin_listen = match &administration {
            Some(listener) => local_address(listener, &settings.admin_listen)?,
            None => listen,
        };
        for socket in succession.left() {
            let address = socket.local_addr().ok();
            tracing::warn!(
                ?address,
                "a socket was handed over that neither listen nor admin_listen names: it is closed"
            );
        }
        let kept_elsewhere = succession.kept_elsewhere;
        Ok(Self { calls, administration, listen, admin_listen, kept_elsewhere })
    }

    /// For the next gateway; none when the system has no descriptors left.
    pub(super) fn copies(&self) -> Vec<OwnedFd> {
        let sockets = std::iter::once(&self.calls).chain(&self.administration);
        sockets.filter_map(|socket| socket.as_fd().try_clone_to_owned().ok()).collect()
    }
}

/// The admin address, while the other one is bound.
async fn bind_second(settings: &Settings, succession: &mut Succession) -> Result<TcpListener, StartError> {
    let (calls, admin) = (&settings.listen, &settings.admin_listen);
    bind(admin, succession).await.map_err(|error| match error {
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

/// One that was handed over, or a new one.
async fn bind(address: &ListenAddress, succession: &mut Succession) -> Result<TcpListener, StartError> {
    let bound = match handed_over(address, succession).await {
        Some(socket) => socket.set_nonblocking(true).and_then(|()| TcpListener::from_std(socket)),
        None => TcpListener::bind((address.host(), address.port())).await,
    };
    let bound = bound.and_then(|socket| {
        rustix::net::listen(&socket, QUEUE)?;
        Ok(socket)
    });
    bound.map_err(|error| listen_error(address, error))
}

/// Port 0 is any port.
async fn handed_over(address: &ListenAddress, succession: &mut Succession) -> Option<std::net::TcpListener> {
    succession.left().next()?;
    let wanted: Vec<_> = lookup_host((address.host(), address.port())).await.ok()?.collect();
    succession.socket(|socket| {
        let fits = |bound: SocketAddr| {
            let same_port = |wanted: &SocketAddr| wanted.port() == 0 || wanted.port() == bound.port();
            wanted.iter().any(|wanted| wanted.ip() == bound.ip() && same_port(wanted))
        };
        socket.local_addr().is_ok_and(fits)
    })
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
        let error = Listeners::bind(&settings, Succession::default()).await.err().unwrap().to_string();
        assert!(error.contains(&format!("127.0.0.1:{port}")) && error.contains("this gateway itself"), "{error}");
    }
}

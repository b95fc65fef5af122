//! Listening sockets that outlive a process, so that a restart refuses and resets nobody: their queues of connections wait in
//! the kernel until the next gateway is ready. They come from a service manager (systemd's `LISTEN_FDS`), or from the gateway
//! that runs on the same data, which is asked to stop by the one that takes over.

use std::{
    collections::BTreeMap,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::TcpListener,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
        recvmsg, sendmsg,
    },
    process::{PidfdFlags, PidfdGetfdFlags, geteuid, getpid, pidfd_getfd, pidfd_open},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, Interest},
    net::{UnixListener, UnixStream},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// The calls' and the administrators'; a service manager may hand over more for further addresses.
const MOST_SOCKETS: usize = 8;
/// Where a service manager's descriptors begin.
const FIRST_DESCRIPTOR: i32 = 3;
/// For what takes microseconds between two processes that live.
const PATIENCE: Duration = Duration::from_secs(5);
/// What cutting, settling and the ledger may take after the grace period.
const AFTER_THE_GRACE: Duration = Duration::from_secs(30);
/// The word of the successor that it has the sockets, and that their keeper is to stop.
const STOP: u8 = b'S';

/// Sockets that a start uses where their addresses are those of its settings.
#[derive(Debug, Default)]
pub struct Succession {
    sockets: Vec<TcpListener>,
    take_over: bool,
    /// A service manager keeps them open when this process ends.
    pub(super) kept_elsewhere: bool,
    /// How long the data may still be another gateway's.
    pub(super) wait: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    #[error("LISTEN_FDS is {0:?}: not a number of sockets from 1 to {MOST_SOCKETS}")]
    Number(String),
    #[error("LISTEN_FDS: descriptor {0} is no listening socket that can be used: {1}")]
    Descriptor(i32, io::Error),
    #[error("cannot take over from the gateway that runs on {path}: {error}")]
    Predecessor { path: PathBuf, error: io::Error },
}

impl Succession {
    /// What a service manager has opened for this process; nothing without one.
    pub fn from_environment(env: &BTreeMap<String, String>) -> Result<Self, HandoverError> {
        let for_us = env.get("LISTEN_PID").and_then(|pid| pid.parse().ok()) == Some(getpid().as_raw_nonzero().get());
        let Some(number) = env.get("LISTEN_FDS").filter(|_| for_us) else { return Ok(Self::default()) };
        let count = number.parse().ok().filter(|count| (1..=MOST_SOCKETS).contains(count));
        let count = count.ok_or_else(|| HandoverError::Number(number.clone()))?;
        let sockets = (FIRST_DESCRIPTOR..)
            .take(count)
            .map(|descriptor| own_socket(descriptor).map_err(|error| HandoverError::Descriptor(descriptor, error)));
        let sockets = sockets.collect::<Result<_, _>>()?;
        Ok(Self { sockets, kept_elsewhere: true, ..Self::default() })
    }

    /// The gateway that runs on the same data, if there is one, is asked for its sockets and to stop.
    #[must_use]
    pub fn taking_over(self) -> Self {
        Self { take_over: true, ..self }
    }

    pub(super) async fn begin(mut self, data_dir: &Path) -> Result<Self, HandoverError> {
        if self.take_over {
            let path = path(data_dir);
            let taken = timeout(PATIENCE, take(&path)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            let taken = taken.map_err(|error| HandoverError::Predecessor { path, error })?;
            // One that is stopping already hands nothing over, and still has the data.
            self.wait = AFTER_THE_GRACE;
            if let Some((sockets, grace)) = taken {
                self.sockets.extend(sockets);
                self.wait = grace.saturating_add(AFTER_THE_GRACE);
            }
        }
        Ok(self)
    }

    /// The first socket that `fits`.
    pub(super) fn socket(&mut self, fits: impl Fn(&TcpListener) -> bool) -> Option<TcpListener> {
        let place = self.sockets.iter().position(fits)?;
        Some(self.sockets.remove(place))
    }

    /// Sockets that were of no use.
    pub(super) fn left(&self) -> impl Iterator<Item = &TcpListener> {
        self.sockets.iter()
    }
}

/// A descriptor of this process by its number, which only the kernel can tell to be one.
fn own_socket(descriptor: i32) -> io::Result<TcpListener> {
    let this = pidfd_open(getpid(), PidfdFlags::empty())?;
    let socket = TcpListener::from(pidfd_getfd(this, descriptor, PidfdGetfdFlags::empty())?);
    socket.local_addr()?;
    Ok(socket)
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("handover")
}

/// `None` when no gateway listens there. The other one stops once it knows that its sockets have arrived.
async fn take(path: &Path) -> io::Result<Option<(Vec<TcpListener>, Duration)>> {
    let mut stream = match UnixStream::connect(path).await {
        // Nobody, or a path that is too long for a socket, where nobody can listen.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::InvalidInput
                    | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        connected => connected?,
    };
    let received = stream.async_io(Interest::READABLE, || receive(stream.as_fd())).await?;
    stream.write_all(&[STOP]).await?;
    Ok(Some(received))
}

fn receive(stream: BorrowedFd<'_>) -> io::Result<(Vec<TcpListener>, Duration)> {
    let mut grace_s = [0; 8];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(stream, &mut [IoSliceMut::new(&mut grace_s)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes < grace_s.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut sockets = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            sockets.extend(descriptors.map(TcpListener::from));
        }
    }
    Ok((sockets, Duration::from_secs(u64::from_be_bytes(grace_s))))
}

/// Where the next gateway asks for the sockets of this one. Only who may write in the data directory gets there.
pub(super) struct Handover {
    asked: UnixListener,
    path: PathBuf,
    sockets: Vec<OwnedFd>,
    grace: Duration,
}

impl Handover {
    /// Whoever has the data directory may remove what an earlier one has left there.
    pub(super) fn listen(data_dir: &Path, sockets: Vec<OwnedFd>, grace: Duration) -> io::Result<Self> {
        let path = path(data_dir);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Ok(Self { asked: UnixListener::bind(&path)?, path, sockets, grace })
    }

    /// Until the sockets are handed over, which cancels `done`, or until `stop`.
    pub(super) async fn run(self, done: CancellationToken, stop: CancellationToken) {
        let handed_over = stop.run_until_cancelled(self.hand_over()).await;
        let _ = std::fs::remove_file(&self.path);
        if handed_over.is_some() {
            done.cancel();
        }
    }

    async fn hand_over(&self) {
        loop {
            match self.asked.accept().await {
                Ok((stream, _)) => match timeout(PATIENCE, self.give(stream)).await {
                    Ok(Ok(())) => return,
                    Ok(Err(error)) => tracing::warn!(%error, "the sockets could not be handed over"),
                    Err(_) => tracing::warn!("who asked for the sockets did not take them"),
                },
                Err(error) => {
                    tracing::warn!(%error, "cannot be asked for the sockets at the moment");
                    tokio::time::sleep(PATIENCE).await;
                }
            }
        }
    }

    async fn give(&self, mut stream: UnixStream) -> io::Result<()> {
        let peer = stream.peer_cred()?.uid();
        if peer != geteuid().as_raw() && peer != 0 {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        stream.async_io(Interest::WRITABLE, || self.send(stream.as_fd())).await?;
        match stream.read_u8().await? {
            STOP => Ok(()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn send(&self, stream: BorrowedFd<'_>) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let sockets: Vec<_> = self.sockets.iter().take(MOST_SOCKETS).map(OwnedFd::as_fd).collect();
        if !control.push(SendAncillaryMessage::ScmRights(&sockets)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let grace_s = self.grace.as_secs().to_be_bytes();
        sendmsg(stream, &[IoSlice::new(&grace_s)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_queue_of_connections_survives_its_socket_in_other_hands() {
        let dir = tempfile::tempdir().unwrap();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let handover = Handover::listen(dir.path(), vec![socket.into()], Duration::from_secs(7)).unwrap();
        let (done, stop) = (CancellationToken::new(), CancellationToken::new());
        let giving = tokio::spawn(handover.run(done.clone(), stop));
        let mut waiting = std::net::TcpStream::connect(address).unwrap();

        let mut succession = Succession::default().taking_over().begin(dir.path()).await.unwrap();
        giving.await.unwrap();
        assert!(done.is_cancelled() && !path(dir.path()).exists(), "one successor is enough");
        assert_eq!(succession.wait, Duration::from_secs(7) + AFTER_THE_GRACE);
        assert!(succession.socket(|_| false).is_none());
        let taken = succession.socket(|socket| socket.local_addr().unwrap() == address).unwrap();
        let (mut served, _) = taken.accept().unwrap();
        io::Write::write_all(&mut served, b"here").unwrap();
        let mut answer = [0; 4];
        io::Read::read_exact(&mut waiting, &mut answer).unwrap();
        assert_eq!(&answer, b"here");
    }

    #[tokio::test]
    async fn nothing_is_taken_over_where_no_gateway_runs_and_who_only_asks_stops_none() {
        let dir = tempfile::tempdir().unwrap();
        let alone = Succession::default().taking_over().begin(dir.path()).await.unwrap();
        assert_eq!((alone.wait, alone.left().count()), (AFTER_THE_GRACE, 0));

        let (done, stop) = (CancellationToken::new(), CancellationToken::new());
        let handover = Handover::listen(dir.path(), Vec::new(), AFTER_THE_GRACE).unwrap();
        let giving = tokio::spawn(handover.run(done.clone(), stop.clone()));
        drop(UnixStream::connect(path(dir.path())).await.unwrap());
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!done.is_cancelled() && !giving.is_finished());
        stop.cancel();
        giving.await.unwrap();
        assert!(!done.is_cancelled() && !path(dir.path()).exists());
    }

    #[test]
    fn a_service_managers_words_for_another_process_are_not_ours() {
        let env = |pid: i32, count: &str| {
            BTreeMap::from([("LISTEN_PID".to_owned(), pid.to_string()), ("LISTEN_FDS".to_owned(), count.to_owned())])
        };
        let us = getpid().as_raw_nonzero().get();
        assert_eq!(Succession::from_environment(&env(us + 1, "1")).unwrap().left().count(), 0);
        assert_eq!(Succession::from_environment(&BTreeMap::new()).unwrap().left().count(), 0);
        for wrong in ["", "0", "x", "9"] {
            assert!(matches!(Succession::from_environment(&env(us, wrong)), Err(HandoverError::Number(_))), "{wrong}");
        }
    }
}

//! Log lines on standard error: text for people, JSON for machines.
//!
//! They are written by a thread of their own. Where its lines go may stand still (a pipe that nobody reads) or be gone, and no
//! request must wait for that: what does not fit into the queue is dropped and counted.

use std::{
    io::{self, Write},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    time::Duration,
};

use tracing_subscriber::{Layer as _, filter::LevelFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::{
    config::{LogFormat, LogLevel},
    metrics::LOG_LINES_DROPPED,
};

/// Enough for what a busy gateway says in the second that a collector of logs needs to take breath.
const MOST_WAITING: usize = 4096;

const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(5);

static QUEUE: OnceLock<Queue> = OnceLock::new();

/// Starts logging. A second call in one process changes nothing.
pub fn start(level: LogLevel, format: LogFormat) {
    let filter = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let queue = QUEUE.get_or_init(|| Queue::before(io::stderr(), MOST_WAITING, format));
    // A writer that says of its own failures what it cannot write would only fail again.
    let lines =
        tracing_subscriber::fmt::layer().with_writer(move || queue).with_target(false).log_internal_errors(false);
    let registry = tracing_subscriber::registry();
    let _ = match format {
        LogFormat::Json => registry.with(lines.json().flatten_event(true).with_filter(filter)).try_init(),
        LogFormat::Text => {
            let colors = std::io::IsTerminal::is_terminal(&std::io::stderr());
            registry.with(lines.with_ansi(colors).with_filter(filter)).try_init()
        }
    };
}

/// Waits for the lines so far to be written, but not for ever.
pub fn finish(within: Duration) {
    if let Some(queue) = QUEUE.get() {
        queue.finish(within);
    }
}

enum Said {
    Line(Box<[u8]>),
    /// Nothing is left to be written when this is dropped.
    End(SyncSender<()>),
}

/// Lines that wait to be written. Takes one with each write, as the layer that formats them makes it.
struct Queue {
    lines: SyncSender<Said>,
    dropped: Arc<AtomicU64>,
}

impl Queue {
    fn before(out: impl Write + Send + 'static, most: usize, format: LogFormat) -> Self {
        let (lines, waiting) = sync_channel(most);
        let dropped = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&dropped);
        // Without a thread the receiver is gone, and all lines are dropped.
        let _ =
            std::thread::Builder::new().name("log".to_owned()).spawn(move || write(&waiting, out, format, &counted));
        Self { lines, dropped }
    }

    fn finish(&self, within: Duration) {
        let (sender, ended) = sync_channel(0);
        let mut end = Said::End(sender);
        let mut left = within;
        // A queue that is full gets room as its lines are written.
        while let Err(TrySendError::Full(not_taken)) = self.lines.try_send(end) {
            let Some(rest) = left.checked_sub(BETWEEN_ATTEMPTS) else { return };
            (end, left) = (not_taken, rest);
            std::thread::sleep(BETWEEN_ATTEMPTS);
        }
        // Nothing comes: the other end is dropped when all is written.
        let _: Result<(), RecvTimeoutError> = ended.recv_timeout(left);
    }
}

/// Where lines go may be closed: they are gone then, and nothing else is.
fn write(waiting: &Receiver<Said>, mut out: impl Write, format: LogFormat, dropped: &AtomicU64) {
    for said in waiting {
        let line = match said {
            Said::Line(line) => line,
            Said::End(told) => {
                drop(told);
                continue;
            }
        };
        let _ = out.write_all(&line);
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let message = "log lines dropped: they were not taken in time";
            let _ = match format {
                LogFormat::Json => writeln!(out, r#"{{"level":"WARN","message":"{message}","lines":{lost}}}"#),
                LogFormat::Text => writeln!(out, " WARN {message} lines={lost}"),
            };
        }
        let _ = out.flush();
    }
}

impl Write for &Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.lines.try_send(Said::Line(line.into())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            LOG_LINES_DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc::channel};

    use super::*;

    /// Takes nothing until it is let, then all.
    struct Stuck(Receiver<()>, Arc<Mutex<Vec<u8>>>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            self.1.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_waits_for_a_log_that_stands_still_and_what_is_lost_is_told() {
        let (let_go, stuck) = channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let queue = Queue::before(Stuck(stuck, Arc::clone(&written)), 10, LogFormat::Text);
        for number in 0..1_000 {
            (&queue).write_all(format!("line {number}\n").as_bytes()).unwrap();
        }
        let began = std::time::Instant::now();
        queue.finish(Duration::from_millis(50));
        assert!(began.elapsed() < Duration::from_secs(10), "the end waits no longer than it is told to");
        drop(let_go);
        queue.finish(Duration::from_secs(20));
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        assert!(text.starts_with("line 0\n"), "{text}");
        assert!(text.contains("log lines dropped"), "{text}");
        assert!(text.lines().count() < 20, "{text}");
    }

    #[test]
    fn a_log_that_is_closed_fails_nobody() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        let queue = Queue::before(Closed, 10, LogFormat::Json);
        writeln!(&queue, "nobody hears this").unwrap();
        queue.finish(Duration::from_secs(20));
    }
}

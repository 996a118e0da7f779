//! A worker process as its parent sees it.

use super::message::{Reply, Request};
use super::{wire, WorkerCommand};
use std::fmt;
use std::io::{BufReader, BufWriter};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

/// How long a worker that is dying may take to become a status.
const BURIAL: Duration = Duration::from_secs(5);

/// Why there is no reply.
#[derive(Debug)]
pub(super) enum Loss {
    /// The worker was never ready for a request.
    NotStarted(String),
    /// It had not answered when its time was up, and was killed.
    TimedOut(Duration),
    /// It broke off: how it ended, in words.
    Ended(String),
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Loss::NotStarted(reason) | Loss::Ended(reason) => f.write_str(reason),
            Loss::TimedOut(limit) => {
                write!(f, "no answer within {} s, killed", limit.as_secs_f64())
            }
        }
    }
}

/// A request with its bytes.
type Asked = (Request, Vec<u8>);
/// A reply with its bytes, or why there will be none.
type Answered = Result<(Reply, Vec<u8>), String>;

/// A worker that is alive as far as is known. Dropping it kills it.
pub(super) struct Worker {
    process: Child,
    requests: Sender<Asked>,
    replies: Receiver<Answered>,
    limit: Duration,
}

impl Worker {
    /// Starts a worker and waits until it is ready.
    pub fn start(command: &WorkerCommand) -> Result<Worker, Loss> {
        let mut worker = Worker::spawn(command).map_err(Loss::NotStarted)?;
        worker.answer().map_err(|loss| Loss::NotStarted(loss.to_string()))?;
        Ok(worker)
    }

    fn spawn(command: &WorkerCommand) -> Result<Worker, String> {
        let mut program = Command::new(&command.program);
        // Ctrl-C at a terminal goes to a whole process group: the search ends in good order, and
        // must not take workers that it killed itself for kernels that crashed.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut program, 0);
        let mut process = program
            .args(&command.arguments)
            .envs(command.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", command.program.display()))?;
        let pipes = process.stdin.take().zip(process.stdout.take());
        let (stdin, stdout) = pipes.ok_or("the worker has no pipes")?;
        let (requests, asked) = channel();
        let (answered, replies) = channel();
        // Both end when the pipe does: the worker's death, or this end being dropped.
        thread::spawn(move || send_all(stdin, &asked));
        thread::spawn(move || receive_all(stdout, &answered));
        Ok(Worker { process, requests, replies, limit: command.limit })
    }

    /// Asks and waits for the answer. The error says what became of the worker, which is dead
    /// then.
    pub fn ask(&mut self, request: Request, bytes: Vec<u8>) -> Result<(Reply, Vec<u8>), Loss> {
        if self.requests.send((request, bytes)).is_err() {
            return Err(self.obituary("it does not listen"));
        }
        self.answer()
    }

    fn answer(&mut self) -> Result<(Reply, Vec<u8>), Loss> {
        match self.replies.recv_timeout(self.limit) {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(reason)) => Err(self.obituary(&reason)),
            Err(RecvTimeoutError::Disconnected) => Err(self.obituary("it does not answer")),
            Err(RecvTimeoutError::Timeout) => {
                self.kill();
                Err(Loss::TimedOut(self.limit))
            }
        }
    }

    /// What became of a worker that broke off: how it ended, or `reason` if it did not.
    fn obituary(&mut self, reason: &str) -> Loss {
        let deadline = Instant::now() + BURIAL;
        while Instant::now() < deadline {
            if let Ok(Some(status)) = self.process.try_wait() {
                return Loss::Ended(ended(status));
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.kill();
        Loss::Ended(format!("{reason}, killed"))
    }

    fn kill(&mut self) {
        // A process that is gone already cannot be killed, and need not be.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An end in words.
fn ended(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return format!("crashed with signal {signal}");
    }
    match status.code() {
        Some(code) => format!("exited with code {code}"),
        None => "ended".into(),
    }
}

/// Writes requests until there are none or nobody reads them.
fn send_all(stdin: ChildStdin, asked: &Receiver<Asked>) {
    let mut stdin = BufWriter::new(stdin);
    while let Ok((request, bytes)) = asked.recv() {
        if wire::write(&mut stdin, &request, &bytes).is_err() {
            return;
        }
    }
}

/// Reads the greeting, which counts as a reply, and replies until the worker ends.
fn receive_all(stdout: ChildStdout, answered: &Sender<Answered>) {
    let mut stdout = BufReader::new(stdout);
    let mut next = match wire::await_greeting(&mut stdout) {
        Ok(()) => Ok((Reply::Done, Vec::new())),
        Err(error) => Err(error.to_string()),
    };
    loop {
        let last = next.is_err();
        if answered.send(next).is_err() || last {
            return;
        }
        next = wire::read(&mut stdout).map_err(|error| error.to_string());
    }
}

//! The agent's control socket: who may, asks it for its status, arms it, disarms it, releases a hold, ends a
//! cordon.
//!
//! A request is a line of JSON, and so is the answer. Only root may connect, and who runs the agent.

use std::{
    fs, io,
    os::unix::{fs::PermissionsExt as _, net},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

use super::audit::Who;

/// Name of the socket in the folder of a running septwatch.
const SOCKET: &str = "control.sock";
/// How long a request may take to come, and its answer to be read.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the answer may take to be made: a reaction may be under way.
const ANSWERS: Duration = Duration::from_secs(30);
/// Longest request, in bytes.
const LONGEST: u64 = 4096;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How things stand.
    Status,
    /// The agent may act from now on.
    Arm {
        /// Name of the policy that whoever asks means: another may have been read meanwhile.
        policy: String,
    },
    /// It may not.
    Disarm,
    /// A TD's hold is ended.
    Release {
        /// Its number.
        td: u32,
    },
    /// New VMs are welcome again.
    Uncordon,
}

/// A request, and the way back to whoever asks.
#[derive(Debug)]
pub struct Asked {
    /// What is asked for.
    pub request: Request,
    /// By whom.
    pub who: Who,
    reply: oneshot::Sender<Value>,
}

impl Asked {
    /// Answers; with an error, in words. That nobody waits for it any more is not the agent's business.
    pub fn answer<T: Serialize>(self, answer: Result<T, String>) {
        let value = answer.and_then(|answer| serde_json::to_value(answer).map_err(|error| error.to_string()));
        let _ = self.reply.send(match value {
            Ok(value) => json!({ "ok": value }),
            Err(why) => json!({ "error": why }),
        });
    }
}

/// The socket. Dropping it removes it.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
    asked: mpsc::Receiver<Asked>,
    accepting: JoinHandle<()>,
}

impl Control {
    /// Opens the socket in this folder, in place of one that a killed agent left: the caller keeps the ledger's lock, so
    /// there is no other. Inside of a runtime.
    ///
    /// # Errors
    /// It cannot be made there.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join(SOCKET);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        let (sender, asked) = mpsc::channel(1);
        let accepting = tokio::spawn(accept(listener, sender));
        Ok(Self { path, asked, accepting })
    }

    /// The next request. Nothing is lost if this is dropped before it comes.
    pub async fn next(&mut self) -> Asked {
        match self.asked.recv().await {
            Some(asked) => asked,
            // The task that accepts never ends before this does.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.accepting.abort();
        // The next agent would remove it as well.
        let _ = fs::remove_file(&self.path);
    }
}

async fn accept(listener: UnixListener, sender: mpsc::Sender<Asked>) {
    loop {
        match listener.accept().await {
            // Its troubles are whoever asks' own.
            Ok((stream, _)) => drop(tokio::spawn(serve(stream, sender.clone()))),
            // No descriptors left, as it may be: not for ever.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn serve(mut stream: UnixStream, sender: mpsc::Sender<Asked>) -> io::Result<()> {
    let answer = match timeout(PATIENCE, request(&mut stream)).await {
        Err(_) => json!({ "error": "no request came" }),
        Ok(Err(error)) => json!({ "error": error.to_string() }),
        Ok(Ok((request, who))) => {
            let (reply, answer) = oneshot::channel();
            let asked = Asked { request, who, reply };
            let asked = async { sender.send(asked).await.ok().map(|()| answer)?.await.ok() };
            let answer = timeout(ANSWERS, asked).await.ok().flatten();
            answer.unwrap_or_else(|| json!({ "error": "the agent does not answer" }))
        }
    };
    let mut line = answer.to_string();
    line.push('\n');
    timeout(PATIENCE, stream.write_all(line.as_bytes())).await?
}

async fn request(stream: &mut UnixStream) -> io::Result<(Request, Who)> {
    let peer = stream.peer_cred()?;
    if peer.uid() != 0 && peer.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "only root may ask"));
    }
    let who = Who { uid: peer.uid(), pid: peer.pid().unwrap_or(0).unsigned_abs() };
    let mut line = String::new();
    BufReader::new(stream.take(LONGEST)).read_line(&mut line).await?;
    Ok((serde_json::from_str(&line)?, who))
}

/// No agent can be asked, or it says no.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// None runs that follows a policy.
    #[error("no septwatch runs here that follows a policy: `septwatch watch --policy ...` starts one")]
    NoAgent,
    /// It says no.
    #[error("{0}")]
    Refused(String),
    /// It cannot be understood, or reached.
    #[error("{path}: {source}")]
    Socket {
        /// The socket.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Asks the agent whose socket is in this folder.
///
/// # Errors
/// There is none, it does not answer, or it says no.
pub fn ask(folder: &Path, request: &Request) -> Result<Value, AskError> {
    use io::{BufRead as _, Write as _};
    let path = folder.join(SOCKET);
    let failed = |source| AskError::Socket { path: path.display().to_string(), source };
    let mut stream = match net::UnixStream::connect(&path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Err(AskError::NoAgent);
        }
        stream => stream.map_err(failed)?,
    };
    let mut exchange = || {
        stream.set_read_timeout(Some(ANSWERS + PATIENCE))?;
        stream.write_all(format!("{}\n", serde_json::to_string(request)?).as_bytes())?;
        let mut answer = String::new();
        io::BufReader::new(&stream).read_line(&mut answer)?;
        Ok(serde_json::from_str::<Value>(&answer)?)
    };
    let mut answer = exchange().map_err(failed)?;
    match answer["error"].as_str() {
        Some(why) => Err(AskError::Refused(why.to_owned())),
        None => Ok(answer["ok"].take()),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn a_request_comes_with_who_asks_and_is_answered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        assert!(matches!(ask(&path, &Request::Status), Err(AskError::NoAgent)));
        let answers = runtime().block_on(async {
            let mut control = Control::open(&path).unwrap();
            let mode = fs::metadata(path.join(SOCKET)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            let asks = tokio::task::spawn_blocking({
                let path = path.clone();
                move || [Request::Release { td: 7 }, Request::Disarm].map(|request| ask(&path, &request))
            });
            let asked = control.next().await;
            assert_eq!(asked.request, Request::Release { td: 7 });
            assert_eq!(asked.who, Who::this());
            asked.answer(Ok(json!({ "frames": 3 })));
            let asked = control.next().await;
            assert_eq!(asked.request, Request::Disarm);
            asked.answer::<()>(Err("not now".to_owned()));
            asks.await.unwrap()
        });
        assert_eq!(answers[0].as_ref().unwrap()["frames"], 3);
        assert!(matches!(&answers[1], Err(AskError::Refused(why)) if why == "not now"));
        assert!(!path.join(SOCKET).exists(), "it goes with the agent");
    }

    #[test]
    fn nonsense_is_answered_and_ends_nothing() {
        use io::{Read as _, Write as _};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(SOCKET);
        runtime().block_on(async {
            let mut control = Control::open(folder.path()).unwrap();
            let asks = tokio::task::spawn_blocking({
                let (path, folder) = (path.clone(), folder.path().to_owned());
                move || {
                    for nonsense in
                        ["\n", "{}\n", "{\"request\":\"explode\"}\n", "{\"request\":\"arm\"}\n", "[[[[\n"]
                    {
                        let mut stream = net::UnixStream::connect(&path).unwrap();
                        stream.write_all(nonsense.as_bytes()).unwrap();
                        let mut answer = String::new();
                        stream.read_to_string(&mut answer).unwrap();
                        assert!(answer.starts_with("{\"error\":"), "{nonsense}: {answer}");
                    }
                    // One that says nothing and stays holds nobody up.
                    let _silent = net::UnixStream::connect(&path).unwrap();
                    ask(&folder, &Request::Status).unwrap()
                }
            });
            let asked = control.next().await;
            assert_eq!(asked.request, Request::Status);
            asked.answer(Ok("well"));
            assert_eq!(asks.await.unwrap(), "well");
        });
    }
}

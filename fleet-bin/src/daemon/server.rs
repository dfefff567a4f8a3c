//! The socket: made private, served until the end, removed.

use std::fs::{self, Permissions};
use std::future::IntoFuture as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::UnixListener;

use super::{Life, SOCKET, Served, routes};
use crate::datadir::{DataDir, DataLock};
use crate::exit::{Exit, OrExit as _, Outcome};

/// How long clients have to read their answers at the end.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// The daemon's socket.
#[derive(Debug)]
pub(crate) struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Makes it. Whoever holds the lock is the only daemon: a socket that is there was left by a dead one.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn bind(dir: &DataDir, _lock: &DataLock) -> Outcome<Self> {
        let path = dir.join(SOCKET);
        let shown = path.display().to_string();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                let message = format!("the socket {shown} of an earlier daemon cannot be removed");
                return Err(error).or_exit(Exit::Failed, message);
            }
            _ => {}
        }
        let listener = UnixListener::bind(&path).or_exit(
            Exit::Failed,
            format!("the socket {shown} cannot be made (its path has at most 107 bytes)"),
        )?;
        // The folder is private already; so is the socket, should somebody open the folder.
        fs::set_permissions(&path, Permissions::from_mode(0o600)).or_exit(
            Exit::Failed,
            format!("the socket {shown} cannot be made private"),
        )?;
        Ok(Self { listener, path })
    }

    /// Serves until the daemon's life is over, then lets clients read what is left for them.
    ///
    /// # Errors
    /// The listener failed.
    pub(crate) async fn serve(self, served: Served) -> Outcome<()> {
        let Self { listener, path } = self;
        let mut life = served.life.clone();
        let mut over = life.clone();
        let ends = async move {
            // Nobody who could say more is there: that is the end, too.
            let _ = life.wait_for(|life| *life == Life::Over).await;
        };
        let serving = axum::serve(listener, routes::router(served)).with_graceful_shutdown(ends);
        let late = async move {
            let _ = over.wait_for(|life| *life == Life::Over).await;
            tokio::time::sleep(LAST_ANSWERS).await;
        };
        let result = tokio::select! {
            result = serving.into_future() => result,
            () = late => Ok(()),
        };
        // Whoever comes now works without a daemon. If it cannot be removed, nobody listens there all the same.
        let _ = fs::remove_file(path);
        result.or_exit(Exit::Failed, "the socket failed")
    }
}

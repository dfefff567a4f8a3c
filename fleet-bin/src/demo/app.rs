//! The program inside the demo's and the tests' containers: a small HTTP server that keeps rows in a file of its
//! volume, and can be told to misbehave. It uses the standard library alone, so that one static binary is an image.
//!
//! | path | answers |
//! |---|---|
//! | `/health` | `{"status":"ok","version":…}`, or as the mode says |
//! | `/version` | the value of `APP_VERSION` |
//! | `/put?TEXT` | appends `TEXT` and a line feed to `rows`, syncs, then answers with the value of `APP_VERSION` |
//! | `/rows` | the number of rows |
//! | `/dump` | the rows |
//!
//! Environment, usually the image's: `APP_VERSION`, `APP_PORT` (8080), `APP_DATA` (`/data`), and `APP_MODE`, a comma
//! separated list of what [`Mode`] knows; empty means a program that behaves. Where `APP_LOCK` names a folder, the program
//! holds a lock in it as long as it lives, and writes into `overlaps` there if another one held it already: two versions
//! that run at a time betray themselves, whatever the engine says of them.
//!
//! The server never decides when it ends: the caller hands in how SIGTERM is waited for.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Where the rows are, below `APP_DATA`.
const ROWS: &str = "rows";

/// How the program behaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Mode {
    /// `unhealthy`: `/health` answers 503.
    unhealthy: bool,
    /// `exit`: ends with code 3 before it listens.
    exit: bool,
    /// `exit-after-health:N`: ends with code 4 after its Nth good answer to `/health`.
    exit_after_health: Option<u64>,
    /// `exit-later:MS`: ends with code 5 after so many milliseconds.
    exit_later: Option<Duration>,
    /// `hang`: takes connections and never answers.
    hang: bool,
    /// `slow:MS`: listens only after so many milliseconds.
    slow: Option<Duration>,
    /// `corrupt`: a bad migration. Rewrites, removes and adds files in the volume, then is unhealthy.
    corrupt: bool,
    /// `ignore-term`: does not end on SIGTERM.
    ignore_term: bool,
    /// `body-huge`: `/health` announces and sends 1 GiB.
    body_huge: bool,
    /// `body-endless`: `/health` sends for ever.
    body_endless: bool,
    /// `redirect`: `/health` answers 302 to another path that would be healthy.
    redirect: bool,
}

impl Mode {
    /// Reads `APP_MODE`.
    ///
    /// # Errors
    /// A word that is not known: a test that misspells one must not pass.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut mode = Self::default();
        for word in text
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty())
        {
            let (name, value) = word.split_once(':').unwrap_or((word, ""));
            let number = || {
                value
                    .parse::<u64>()
                    .map_err(|_| format!("expected a number after {name}:, found {value:?}"))
            };
            match name {
                "unhealthy" => mode.unhealthy = true,
                "exit" => mode.exit = true,
                "exit-after-health" => mode.exit_after_health = Some(number()?),
                "exit-later" => mode.exit_later = Some(Duration::from_millis(number()?)),
                "hang" => mode.hang = true,
                "slow" => mode.slow = Some(Duration::from_millis(number()?)),
                "corrupt" => mode.corrupt = true,
                "ignore-term" => mode.ignore_term = true,
                "body-huge" => mode.body_huge = true,
                "body-endless" => mode.body_endless = true,
                "redirect" => mode.redirect = true,
                _ => return Err(format!("unknown word {word:?} in APP_MODE")),
            }
        }
        Ok(mode)
    }
}

/// Runs the program: `probe` asks a running one once (for HEALTHCHECK), anything else serves.
///
/// `wait_for_term` blocks until SIGTERM arrives; it is called on a thread of its own.
pub(crate) fn run(args: &[String], wait_for_term: impl FnOnce() + Send + 'static) -> ExitCode {
    let result = match args.first().map(String::as_str) {
        Some("probe") => probe(),
        _ => serve(wait_for_term),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // A container's log is the only place to say it; if that is gone, so be it.
            let _ = writeln!(io::stderr(), "app: {error}");
            ExitCode::FAILURE
        }
    }
}

fn variable(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

fn probe() -> io::Result<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port()?))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
    let mut line = String::new();
    BufReader::new(stream.take(64)).read_line(&mut line)?;
    Ok(u8::from(!line.contains(" 200 ")))
}

fn port() -> io::Result<u16> {
    let text = variable("APP_PORT", "8080");
    text.parse()
        .map_err(|_| io::Error::other(format!("expected a port in APP_PORT, found {text:?}")))
}

fn serve(wait_for_term: impl FnOnce() + Send + 'static) -> io::Result<u8> {
    let mode = Mode::parse(&variable("APP_MODE", "")).map_err(io::Error::other)?;
    let data = PathBuf::from(variable("APP_DATA", "/data"));
    let _lock = std::env::var_os("APP_LOCK")
        .map(|folder| hold(Path::new(&folder)))
        .transpose()?;
    if !mode.ignore_term {
        thread::spawn(move || {
            wait_for_term();
            std::process::exit(0);
        });
    }
    if mode.exit {
        return Ok(3);
    }
    if mode.corrupt {
        corrupt(&data)?;
    }
    if let Some(after) = mode.exit_later {
        thread::spawn(move || {
            wait(after);
            std::process::exit(5);
        });
    }
    if let Some(after) = mode.slow {
        wait(after);
    }
    let listener = TcpListener::bind(("0.0.0.0", port()?))?;
    let app = Arc::new(App {
        mode,
        version: variable("APP_VERSION", "0"),
        rows: Mutex::new(Rows::open(&data)),
        health_answers: AtomicU64::new(0),
    });
    for stream in listener.incoming().flatten() {
        let app = Arc::clone(&app);
        // A client that goes away in the middle is its own affair.
        thread::spawn(move || app.answer(&stream).ok());
    }
    Ok(0)
}

/// Waits whole, also when woken early.
fn wait(duration: Duration) {
    let until = Instant::now() + duration;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        thread::park_timeout(left.max(Duration::from_millis(1)));
    }
}

/// Holds the lock in a folder for as long as the file that it gives is open; notes it if it is held already.
fn hold(folder: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    let lock = options.open(folder.join("lock"))?;
    if let Err(error) = lock.try_lock() {
        let mut overlaps = options.open(folder.join("overlaps"))?;
        writeln!(
            overlaps,
            "{} began beside another: {error}",
            variable("APP_VERSION", "0")
        )?;
        overlaps.sync_all()?;
    }
    Ok(lock)
}

/// What a bad migration does: a plain file rewritten shorter, another removed, one added, a link and a folder moved.
fn corrupt(data: &Path) -> io::Result<()> {
    let rows = data.join(ROWS);
    let text = fs::read(&rows).unwrap_or_default();
    fs::write(
        &rows,
        text.iter()
            .rev()
            .take(text.len() / 2)
            .copied()
            .collect::<Vec<_>>(),
    )?;
    for entry in fs::read_dir(data)?.flatten() {
        let kind = entry.file_type()?;
        if kind.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else if entry.file_name() != ROWS {
            fs::remove_file(entry.path())?;
        }
    }
    fs::create_dir_all(data.join("migrated/deep"))?;
    fs::write(data.join("migrated/deep/schema"), "2")?;
    fs::write(data.join("extra"), vec![b'x'; 4096])?;
    File::open(data)?.sync_all()
}

struct App {
    mode: Mode,
    version: String,
    rows: Mutex<Rows>,
    health_answers: AtomicU64,
}

impl App {
    fn answer(&self, mut stream: &TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut reader = BufReader::new(stream.take(16 * 1024));
        let mut request = String::new();
        reader.read_line(&mut request)?;
        // Read the headers too: closing a socket with unread bytes resets the connection under the client.
        let mut header = String::new();
        while reader.read_line(&mut header)? > 2 {
            header.clear();
        }
        if self.mode.hang {
            loop {
                thread::park();
            }
        }
        let target = request.split(' ').nth(1).unwrap_or("/");
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        match path {
            "/health" => self.health(&mut stream),
            "/well" => reply(&mut stream, "200 OK", "{\"status\":\"ok\"}"),
            "/version" => reply(&mut stream, "200 OK", &self.version),
            "/put" => self.change(&mut stream, |rows| {
                rows.put(query).map(|()| self.version.clone())
            }),
            "/rows" => self.change(&mut stream, |rows| rows.text().map(|text| count(&text))),
            "/dump" => self.change(&mut stream, |rows| rows.text()),
            _ => reply(&mut stream, "404 Not Found", "no such path"),
        }
    }

    fn change(
        &self,
        stream: &mut impl Write,
        act: impl FnOnce(&mut Rows) -> io::Result<String>,
    ) -> io::Result<()> {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        match act(&mut rows) {
            Ok(text) => reply(stream, "200 OK", &text),
            Err(error) => reply(stream, "500 Internal Server Error", &error.to_string()),
        }
    }

    fn health(&self, stream: &mut impl Write) -> io::Result<()> {
        if self.mode.unhealthy || self.mode.corrupt {
            return reply(stream, "503 Service Unavailable", "{\"status\":\"bad\"}");
        }
        if self.mode.redirect {
            let head = "HTTP/1.1 302 Found\r\nLocation: /well\r\nContent-Length: 0\r\n\r\n";
            return stream.write_all(head.as_bytes());
        }
        if self.mode.body_huge {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n")?;
            return flood(stream, Some(1 << 30));
        }
        if self.mode.body_endless {
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            return flood(stream, None);
        }
        let body = format!("{{\"status\":\"ok\",\"version\":\"{}\"}}", self.version);
        reply(stream, "200 OK", &body)?;
        let answered = self.health_answers.fetch_add(1, Ordering::SeqCst) + 1;
        if self
            .mode
            .exit_after_health
            .is_some_and(|limit| answered >= limit)
        {
            std::process::exit(4);
        }
        Ok(())
    }
}

fn reply(stream: &mut impl Write, status: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    let answer =
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    stream.write_all(answer.as_bytes())?;
    stream.flush()
}

/// Sends spaces, which JSON readers skip, so that only a cap on the bytes ends it.
fn flood(stream: &mut impl Write, bytes: Option<usize>) -> io::Result<()> {
    let block = [b' '; 64 * 1024];
    let mut sent = 0;
    while bytes.is_none_or(|limit| sent < limit) {
        stream.write_all(&block)?;
        sent += block.len();
    }
    Ok(())
}

fn count(text: &str) -> String {
    text.lines().count().to_string()
}

/// The file of rows; opened at start, so that a version that fails to open it says so on every request.
struct Rows {
    path: PathBuf,
    file: io::Result<File>,
}

impl Rows {
    fn open(data: &Path) -> Self {
        let path = data.join(ROWS);
        let file = OpenOptions::new().append(true).create(true).open(&path);
        Self { path, file }
    }

    fn put(&mut self, text: &str) -> io::Result<()> {
        let file = self
            .file
            .as_mut()
            .map_err(|error| io::Error::other(error.to_string()))?;
        file.write_all(format!("{text}\n").as_bytes())?;
        file.sync_data()
    }

    fn text(&mut self) -> io::Result<String> {
        fs::read(&self.path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }
}

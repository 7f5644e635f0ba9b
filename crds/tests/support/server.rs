//! A real etcd and API server on loopback, for tests. Effects: starts and ends processes, sockets, files in a temporary folder.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Environment variable that names a folder with `etcd`, `kube-apiserver` and `kubectl`.
pub const VARIABLE: &str = "SEARCHCELL_APISERVER_BIN_DIR";

/// The folder of the binaries, if there is one.
pub fn binaries() -> Option<PathBuf> {
    std::env::var_os(VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// A running API server; dropping it ends its processes and removes its folder.
pub struct Server {
    binaries: PathBuf,
    folder: PathBuf,
    kubeconfig: PathBuf,
    proxy: String,
    children: Vec<Child>,
}

impl Server {
    /// Starts etcd, the API server and a plain-HTTP proxy to it, and waits until it is ready.
    pub fn start(binaries: PathBuf) -> Self {
        // Nobody makes accounts of namespaces here.
        Self::start_without(binaries, &["ServiceAccount"])
    }

    /// The same, with these admission plugins disabled.
    pub fn start_without(binaries: PathBuf, plugins: &[&str]) -> Self {
        let folder = std::env::temp_dir().join(format!("searchcell-apiserver-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let kubeconfig = folder.join("kubeconfig");
        let mut server = Self { binaries, folder, kubeconfig, proxy: String::new(), children: Vec::new() };
        let [client, peer, secure] = ports();
        server.start_etcd(client, peer);
        server.start_api_server(client, secure, plugins);
        server.start_proxy();
        server
    }

    fn start_etcd(&mut self, client: u16, peer: u16) {
        let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        let data = self.folder.join("etcd");
        let mut command = self.command("etcd");
        command.arg("--data-dir").arg(data).arg("--unsafe-no-fsync");
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.arg(format!("--initial-cluster=default={peer}"));
        self.spawn("etcd", command);
    }

    fn start_api_server(&mut self, etcd: u16, secure: u16, without: &[&str]) {
        let key = self.folder.join("service-account.key");
        let made = Command::new("openssl")
            .args(["genrsa", "-out"])
            .arg(&key)
            .arg("2048")
            .stderr(Stdio::null())
            .status()
            .expect("openssl is needed");
        assert!(made.success());
        let token = format!("test-{}", std::process::id());
        let tokens = self.folder.join("tokens.csv");
        fs::write(&tokens, format!("{token},test,test,system:masters\n")).unwrap();
        let config = format!(
            "{{apiVersion: v1, kind: Config, current-context: test, clusters: [{{name: test, cluster: {{server: 'https://127.0.0.1:{secure}', insecure-skip-tls-verify: true}}}}], users: [{{name: test, user: {{token: {token}}}}}], contexts: [{{name: test, context: {{cluster: test, user: test}}}}]}}"
        );
        fs::write(&self.kubeconfig, config).unwrap();
        let mut command = self.command("kube-apiserver");
        command.args(["--bind-address", "127.0.0.1", "--service-cluster-ip-range", "10.0.0.0/24"]);
        command.args(["--authorization-mode", "RBAC"]);
        if !without.is_empty() {
            command.arg(format!("--disable-admission-plugins={}", without.join(",")));
        }
        command.args(["--service-account-issuer", "https://test.invalid"]);
        command.arg(format!("--etcd-servers=http://127.0.0.1:{etcd}"));
        command.arg(format!("--secure-port={secure}"));
        command.arg("--cert-dir").arg(self.folder.join("certificates"));
        command.arg("--service-account-signing-key-file").arg(&key);
        command.arg("--service-account-key-file").arg(&key);
        command.arg("--token-auth-file").arg(&tokens);
        self.spawn("kube-apiserver", command);
        let deadline = Instant::now() + Duration::from_secs(120);
        while !self.kubectl(&["get", "--raw", "/readyz"]).status.success() {
            self.check_alive();
            assert!(
                Instant::now() < deadline,
                "the API server is not ready:\n{}",
                self.log("kube-apiserver")
            );
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    fn start_proxy(&mut self) {
        let mut command = self.command("kubectl");
        command.args(["proxy", "--port=0", "--address=127.0.0.1"]).arg("--kubeconfig").arg(&self.kubeconfig);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        self.children.push(child);
        self.proxy = line.trim().rsplit(' ').next().unwrap().to_owned();
        assert!(self.proxy.starts_with("127.0.0.1:"), "{line}");
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.binaries.join(program));
        command.current_dir(&self.folder).stdin(Stdio::null()).env("HOME", &self.folder);
        command
    }

    fn spawn(&mut self, program: &str, mut command: Command) {
        let log = File::create(self.folder.join(format!("{program}.log"))).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
        self.children.push(child);
    }

    fn check_alive(&mut self) {
        let ended = self.children.iter_mut().any(|child| child.try_wait().unwrap().is_some());
        assert!(!ended, "ended early:\n{}\n{}", self.log("etcd"), self.log("kube-apiserver"));
    }

    fn log(&self, program: &str) -> String {
        let text = fs::read_to_string(self.folder.join(format!("{program}.log"))).unwrap_or_default();
        text.lines().rev().take(20).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Runs kubectl to its end.
    pub fn kubectl(&self, arguments: &[&str]) -> Output {
        self.command("kubectl").arg("--kubeconfig").arg(&self.kubeconfig).args(arguments).output().unwrap()
    }

    /// Runs kubectl, which must succeed, and returns what it prints.
    pub fn kubectl_ok(&self, arguments: &[&str]) -> String {
        let output = self.kubectl(arguments);
        assert!(
            output.status.success(),
            "kubectl {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Applies a file or a folder, server-side.
    pub fn apply(&self, path: &Path) {
        self.kubectl_ok(&["apply", "--server-side", "-f", path.to_str().unwrap()]);
    }

    /// One request; returns the status code and the body.
    pub fn request(&self, method: &str, path: &str, accept: &str, body: Option<&Value>) -> (u16, Value) {
        self.request_as(method, path, accept, "application/json", body)
    }

    /// One request with a body of a stated media type; returns the status code and the body.
    pub fn request_as(
        &self,
        method: &str,
        path: &str,
        accept: &str,
        media_type: &str,
        body: Option<&Value>,
    ) -> (u16, Value) {
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut stream = TcpStream::connect(&self.proxy).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        // HTTP/1.0: the answer ends with the connection and comes in one piece.
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nAccept: {accept}\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}")))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Three free ports.
fn ports() -> [u16; 3] {
    let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

//! Other programs: kubectl as a user types it, and the script that runs the cluster.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// What a program left behind.
#[derive(Clone, Debug)]
pub struct Output {
    /// Exit code; -1 when a signal or the time limit ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Standard output of a program that succeeded.
    pub fn ok(self, what: &str) -> String {
        assert_eq!(self.code, 0, "{what} failed: {}{}", self.stderr, self.stdout);
        self.stdout
    }
}

/// Runs a program to its end; a program that takes longer than `limit` is killed.
pub async fn run(
    program: impl AsRef<Path>,
    arguments: &[&str],
    stdin: Option<&str>,
    limit: Duration,
) -> Result<Output, String> {
    let program = program.as_ref();
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{}: {error}", program.display()))?;
    if let (Some(text), Some(mut pipe)) = (stdin, child.stdin.take()) {
        pipe.write_all(text.as_bytes()).await.map_err(|error| error.to_string())?;
    }
    match tokio::time::timeout(limit, child.wait_with_output()).await {
        Err(_) => {
            let stderr = format!(
                "{} {}: not done after {} s",
                program.display(),
                arguments.join(" "),
                limit.as_secs()
            );
            Ok(Output { code: -1, stdout: String::new(), stderr })
        }
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(output)) => Ok(Output {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }),
    }
}

/// Runs kubectl with the tests' KUBECONFIG.
pub async fn kubectl(arguments: &[&str], stdin: Option<&str>, limit: Duration) -> Output {
    run("kubectl", arguments, stdin, limit).await.expect("kubectl starts")
}

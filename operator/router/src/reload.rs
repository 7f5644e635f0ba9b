//! Reads the configuration file again when it changes: the section `hot` comes into force at once, anything else needs a
//! restart, and the log says so. Effects: reads the file, and the log.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::hot::Hot;
use crate::settings;

/// How often the file is looked at. The kubelet needs longer to bring another one.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The configuration file as it was last read.
pub struct File {
    path: PathBuf,
    text: String,
    rest: Option<serde_yaml::Value>,
}

/// What came of looking at the file.
#[derive(Debug)]
pub enum Looked {
    /// It is as it was.
    Same,
    /// It changed. `restart`: in more than what can be changed without one, as far as it has changed since the start.
    Changed {
        /// Whether a restart is needed for all of it.
        restart: bool,
    },
    /// It cannot be read or used; everything stays as it is.
    Wrong(settings::SettingsError),
}

impl File {
    /// The file that the router was started with.
    pub fn new(path: PathBuf) -> Self {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let rest = rest(&text);
        Self { path, text, rest }
    }

    /// Looks at it, and puts in force what can be.
    pub fn look(&mut self, hot: &Hot) -> Looked {
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) if text == self.text => return Looked::Same,
            Ok(text) => text,
            // A file that is being replaced is there again soon.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Looked::Same,
            Err(error) => {
                return Looked::Wrong(settings::SettingsError::Read { path: self.path.clone(), error });
            }
        };
        self.text.clone_from(&text);
        match settings::parse(&text, &self.path) {
            Ok(settings) => {
                if *hot.rules() != settings.hot {
                    hot.set(settings.hot);
                }
                Looked::Changed { restart: rest(&text) != self.rest }
            }
            Err(error) => Looked::Wrong(error),
        }
    }
}

/// Everything but what can change without a restart.
fn rest(text: &str) -> Option<serde_yaml::Value> {
    let mut value: serde_yaml::Value = serde_yaml::from_str(text).ok()?;
    value.as_mapping_mut()?.remove("hot");
    Some(value)
}

/// Looks at the file for as long as it runs.
pub async fn watch(mut file: File, hot: Arc<Hot>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        match file.look(&hot) {
            Looked::Same => {}
            Looked::Changed { restart: false } => {
                tracing::info!(hot = ?hot.rules(), "the configuration changed")
            }
            Looked::Changed { restart: true } => tracing::warn!(
                "the configuration changed in more than the section hot: the rest comes into force with a restart"
            ),
            Looked::Wrong(error) => tracing::warn!(%error, "the configuration stays as it is"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_change_at_once_and_the_rest_with_a_restart() {
        let path = std::env::temp_dir().join(format!("searchcell-router-reload-{}.yaml", std::process::id()));
        let write = |hot: &str, listen: u16| {
            let text =
                format!("listen: 127.0.0.1:{listen}\ncollections: [{{name: messages, table: /t}}]\n{hot}");
            std::fs::write(&path, text).unwrap();
        };
        write("", 1);
        let hot = Hot::new(settings::HotTenants::default());
        let mut file = File::new(path.clone());
        assert!(matches!(file.look(&hot), Looked::Same));
        write("hot: {documentsPerSecond: 7}\n", 1);
        assert!(matches!(file.look(&hot), Looked::Changed { restart: false }));
        assert_eq!(hot.rules().documents_per_second, 7);
        write("hot: {documentsPerSecond: 8}\n", 2);
        assert!(matches!(file.look(&hot), Looked::Changed { restart: true }));
        assert_eq!(hot.rules().documents_per_second, 8);
        write("hot: {documentsPerSecond: 8, limit: 1}\n", 1);
        assert!(matches!(file.look(&hot), Looked::Wrong(error) if error.to_string().contains("hot.limit")));
        assert!(matches!(file.look(&hot), Looked::Same), "told once");
        write("hot: {documentsPerSecond: 9}\n", 1);
        assert!(matches!(file.look(&hot), Looked::Changed { restart: false }), "as at the start again");
        assert_eq!(hot.rules().documents_per_second, 9);
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(file.look(&hot), Looked::Same));
    }
}

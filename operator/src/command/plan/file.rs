//! What a plan is asked about: objects in YAML, of files or standard input. Effects: reads them.

use std::io::Read as _;

use kube::Resource;
use searchcell_crds::{IndexPlacement, SearchCell};
use serde::Deserialize as _;
use serde_json::{Map, Value};

/// Largest input that is read.
const MOST_BYTES: u64 = 16 << 20;

/// The kinds that a plan can be made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A SearchCell.
    Cell,
    /// An IndexPlacement.
    Placement,
}

impl Asked {
    /// As Kubernetes spells it.
    pub fn kind(self) -> &'static str {
        match self {
            Asked::Cell => "SearchCell",
            Asked::Placement => "IndexPlacement",
        }
    }

    /// In paths of the API.
    pub fn plural(self) -> String {
        match self {
            Asked::Cell => SearchCell::plural(&()).into_owned(),
            Asked::Placement => IndexPlacement::plural(&()).into_owned(),
        }
    }

    fn of(kind: &str) -> Option<Self> {
        [Asked::Cell, Asked::Placement].into_iter().find(|asked| asked.kind() == kind)
    }
}

/// An object of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Its kind.
    pub asked: Asked,
    /// Where it belongs.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// All of it.
    pub object: Map<String, Value>,
}

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("{file} cannot be read: {source}")]
    Io {
        /// Which one.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is no YAML.
    #[error("{file}: document {number} is no YAML object: {why}")]
    Yaml {
        /// Which one.
        file: String,
        /// From 1.
        number: usize,
        /// Why.
        why: String,
    },
    /// It has something else.
    #[error(
        "{file}: document {number} is a {kind}: a plan is made for SearchCells and IndexPlacements of {api_version} alone; \
         take it out"
    )]
    Kind {
        /// Which one.
        file: String,
        /// From 1.
        number: usize,
        /// What it is.
        kind: String,
        /// What it should be of.
        api_version: String,
    },
    /// It does not say what it is called.
    #[error("{file}: document {number} has no metadata.name")]
    Nameless {
        /// Which one.
        file: String,
        /// From 1.
        number: usize,
    },
    /// Two namespaces.
    #[error("{file}: {kind} {name} is of namespace {of}, and --namespace says {asked}")]
    Namespace {
        /// Which one.
        file: String,
        /// Of the object.
        kind: &'static str,
        /// Of the object.
        name: String,
        /// In the file.
        of: String,
        /// On the command line.
        asked: String,
    },
    /// The same object twice.
    #[error("{kind} {namespace}/{name} is there twice")]
    Twice {
        /// Of the object.
        kind: &'static str,
        /// Of the object.
        namespace: String,
        /// Of the object.
        name: String,
    },
    /// Nothing.
    #[error("there is nothing to plan in {0}")]
    Empty(String),
}

/// Where objects without a namespace belong.
#[derive(Clone, Debug)]
pub struct Namespaces {
    /// Of the command line.
    pub asked: Option<String>,
    /// Of the kubeconfig.
    pub default: String,
}

/// Reads all files; `-` is standard input.
pub fn read(files: &[String], namespaces: &Namespaces) -> Result<Vec<Wanted>, FileError> {
    let mut all: Vec<Wanted> = Vec::new();
    for file in files {
        let text = text(file).map_err(|source| FileError::Io { file: file.clone(), source })?;
        for wanted in objects(file, &text, namespaces)? {
            let Wanted { asked, namespace, name, .. } = &wanted;
            if all
                .iter()
                .any(|known| (&known.asked, &known.namespace, &known.name) == (asked, namespace, name))
            {
                let (namespace, name) = (namespace.clone(), name.clone());
                return Err(FileError::Twice { kind: asked.kind(), namespace, name });
            }
            all.push(wanted);
        }
    }
    if all.is_empty() { Err(FileError::Empty(files.join(", "))) } else { Ok(all) }
}

fn text(file: &str) -> std::io::Result<String> {
    let mut text = String::new();
    let read = match file {
        "-" => std::io::stdin().take(MOST_BYTES).read_to_string(&mut text)?,
        path => std::fs::File::open(path)?.take(MOST_BYTES).read_to_string(&mut text)?,
    };
    if u64::try_from(read).is_ok_and(|read| read < MOST_BYTES) {
        Ok(text)
    } else {
        Err(std::io::Error::other("it is larger than any object"))
    }
}

/// All objects of a text.
pub fn objects(file: &str, text: &str, namespaces: &Namespaces) -> Result<Vec<Wanted>, FileError> {
    let mut found = Vec::new();
    for (document, number) in serde_yaml::Deserializer::from_str(text).zip(1..) {
        let broken = |why: String| FileError::Yaml { file: file.to_owned(), number, why };
        let object = match Value::deserialize(document).map_err(|error| broken(error.to_string()))? {
            // Between two separators.
            Value::Null => continue,
            Value::Object(object) => object,
            _ => return Err(broken("it is a list or a text".to_owned())),
        };
        found.push(wanted(file, number, object, namespaces)?);
    }
    Ok(found)
}

fn wanted(
    file: &str,
    number: usize,
    object: Map<String, Value>,
    namespaces: &Namespaces,
) -> Result<Wanted, FileError> {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let api_version = SearchCell::api_version(&());
    let asked = Asked::of(text("kind")).filter(|_| text("apiVersion") == api_version);
    let Some(asked) = asked else {
        let kind = format!("{} of {}", or_nothing(text("kind")), or_nothing(text("apiVersion")));
        let api_version = api_version.into_owned();
        return Err(FileError::Kind { file: file.to_owned(), number, kind, api_version });
    };
    let metadata = |key: &str| object.get("metadata")?.get(key)?.as_str().map(str::to_owned);
    let name = metadata("name").filter(|name| !name.is_empty());
    let Some(name) = name else { return Err(FileError::Nameless { file: file.to_owned(), number }) };
    let namespace = match (metadata("namespace"), &namespaces.asked) {
        (Some(of), Some(to)) if of != *to => {
            let (file, asked_for) = (file.to_owned(), to.clone());
            return Err(FileError::Namespace { file, kind: asked.kind(), name, of, asked: asked_for });
        }
        (Some(of), _) => of,
        (None, Some(to)) => to.clone(),
        (None, None) => namespaces.default.clone(),
    };
    Ok(Wanted { asked, namespace, name, object })
}

fn or_nothing(text: &str) -> &str {
    if text.is_empty() { "nothing" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str, asked: Option<&str>) -> Result<Vec<Wanted>, String> {
        let namespaces = Namespaces { asked: asked.map(str::to_owned), default: "default".to_owned() };
        objects("f.yaml", text, &namespaces).map_err(|error| error.to_string())
    }

    const CELL: &str = "apiVersion: searchcell.dev/v1alpha1\nkind: SearchCell\nmetadata: {name: guilds}\n";

    #[test]
    fn the_example_has_a_cell_and_two_placements() {
        let text = include_str!("../../../../manifests/examples/quickstart.yaml");
        let found = read_text(text, None).unwrap();
        let kinds: Vec<Asked> = found.iter().map(|wanted| wanted.asked).collect();
        assert_eq!(kinds, [Asked::Cell, Asked::Placement, Asked::Placement]);
        assert!(found.iter().all(|wanted| wanted.namespace == "default"));
    }

    #[test]
    fn namespaces_are_of_the_object_or_the_command_line_and_not_of_both() {
        let namespace = |text: &str, asked| read_text(text, asked).map(|found| found[0].namespace.clone());
        let other = CELL.replace("name: guilds", "name: guilds, namespace: search");
        assert_eq!(namespace(CELL, Some("search")).unwrap(), "search");
        assert_eq!(namespace(&other, None).unwrap(), "search");
        assert!(namespace(&other, Some("default")).unwrap_err().contains("--namespace says default"));
    }

    #[test]
    fn other_kinds_are_named() {
        let text = format!("{CELL}---\n---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: search}}\n");
        let error = read_text(&text, None).unwrap_err();
        assert!(error.contains("document 3 is a Namespace of v1"), "{error}");
        let old = CELL.replace("v1alpha1", "v1");
        assert!(read_text(&old, None).unwrap_err().contains("a SearchCell of searchcell.dev/v1:"));
        let list = read_text("- a\n", None).unwrap_err();
        assert!(list.contains("document 1 is no YAML object"), "{list}");
        assert!(read_text("a: [", None).unwrap_err().contains("no YAML"));
        assert!(
            read_text(&CELL.replace("name: guilds", "labels: {}"), None)
                .unwrap_err()
                .contains("no metadata.name")
        );
    }
}

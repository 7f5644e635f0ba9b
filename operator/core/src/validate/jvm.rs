//! Which options of the Java virtual machine a user may give. Pure.

/// Longest option, in bytes.
const MAX_OPTION: usize = 512;

const HEAP: &str = "sets the size of the heap: set heap instead";
const PATHS: &str = "sets what the operator or the image sets: remove it";
const RUNS: &str = "runs a program when the node fails: remove it, Kubernetes restarts the node";
const LOADS: &str = "loads foreign code or further options into the node: remove it";

/// Beginnings of options that are refused, each with the reason.
const REFUSED: &[(&str, &str)] = &[
    ("-Xms", HEAP),
    ("-Xmx", HEAP),
    ("-XX:MaxHeapSize", HEAP),
    ("-XX:InitialHeapSize", HEAP),
    ("-XX:MaxRAM", HEAP),
    ("-XX:MinRAM", HEAP),
    ("-XX:InitialRAM", HEAP),
    ("-Des.path.", PATHS),
    ("-Des.security", PATHS),
    ("-Des.distribution", PATHS),
    ("-Des.entitlements", PATHS),
    ("-Djava.security.manager", PATHS),
    ("-Djava.security.policy", PATHS),
    ("-Djava.io.tmpdir", PATHS),
    ("-XX:OnError", RUNS),
    ("-XX:OnOutOfMemoryError", RUNS),
    ("-javaagent", LOADS),
    ("-agentlib", LOADS),
    ("-agentpath", LOADS),
    ("-Xrun", LOADS),
    ("-Xdebug", LOADS),
    ("-Xbootclasspath", LOADS),
    ("-XX:Flags", LOADS),
    ("-XX:VMOptionsFile", LOADS),
    ("-cp", LOADS),
    ("-classpath", LOADS),
    ("-jar", LOADS),
    ("--class-path", LOADS),
    ("--module-path", LOADS),
    ("--upgrade-module-path", LOADS),
    ("--patch-module", LOADS),
];

/// What is wrong with one option; absent: nothing.
pub fn problem(option: &str) -> Option<&'static str> {
    if option.len() > MAX_OPTION {
        return Some("is longer than 512 bytes: shorten it");
    }
    if option.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Some("contains a space or a line break: give each option an entry of its own");
    }
    let Some(option) = without_java_version(option) else {
        return Some(
            "is no option of the Java virtual machine: begin it with a dash, or with versions of Java \
             as in 21:-XX:+UseZGC",
        );
    };
    REFUSED.iter().find(|(start, _)| option.starts_with(start)).map(|(_, why)| *why)
}

/// The option itself: `8:-X`, `8-:-X` and `8-11:-X` are options for some versions of Java only.
fn without_java_version(option: &str) -> Option<&str> {
    if option.starts_with('-') {
        return (option.len() > 1).then_some(option);
    }
    let (versions, rest) = option.split_once(":-")?;
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (from, to) = versions.split_once('-').unwrap_or((versions, ""));
    if !number(from) || !(to.is_empty() || number(to)) || rest.is_empty() {
        return None;
    }
    // One more than the colon: the dash belongs to the option.
    option.get(versions.len() + 1..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_accepted_with_and_without_versions_of_java() {
        for option in
            ["-Dlog4j2.formatMsgNoLookups=true", "-XX:+UseZGC", "21:-XX:+UseZGC", "17-:-Xss2m", "8-11:-Xint"]
        {
            assert_eq!(problem(option), None, "{option}");
        }
    }

    #[test]
    fn dangerous_options_are_refused() {
        for option in [
            "-Xms1g",
            "-Xmx1g",
            "8-:-Xmx1g",
            "-XX:MaxHeapSize=1g",
            "-XX:MaxRAMPercentage=80",
            "-Des.path.conf=/tmp",
            "-Des.security.manager=off",
            "-XX:OnError=kill",
            "-XX:OnOutOfMemoryError=kill",
            "-javaagent:/tmp/a.jar",
            "-agentlib:jdwp=transport=dt_socket",
            "-XX:VMOptionsFile=/tmp/o",
            "-Dx=1\n-Xmx1g",
            "-Dx=1 -Xmx1g",
            "UseZGC",
            "x:-Xint",
            "-",
            "21:",
            "",
            "# comment",
        ] {
            assert!(problem(option).is_some(), "{option:?}");
        }
        assert!(problem(&format!("-D{}", "x".repeat(600))).is_some());
    }
}

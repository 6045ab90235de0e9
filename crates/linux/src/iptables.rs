//! `iptables-save` and `iptables-restore`, IPv4 and IPv6, in the flavour that the host already uses.
//!
//! The two flavours keep separate rules in the kernel, so mixing them breaks whoever came first. Kubernetes' way to
//! agree is a chain in the `mangle` table: `KUBE-IPTABLES-HINT` (KEP-3178), earlier `KUBE-KUBELET-CANARY`.

use std::io;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// The chain that tells everyone on the host which flavour is in use.
pub const HINT_CHAIN: &str = "KUBE-IPTABLES-HINT";
/// Its predecessor.
const CANARY_CHAIN: &str = "KUBE-KUBELET-CANARY";
/// How many seconds the programs wait for the xtables lock.
const LOCK_WAIT: &str = "5";

/// The IP family of a rule set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Which kernel interface holds the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flavour {
    /// nf_tables.
    Nft,
    /// The older xtables.
    Legacy,
    /// Whatever the plain `iptables` command stands for, where the suffixed commands are not installed.
    Plain,
}

/// What went wrong with an iptables program.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program could not be started or talked to.
    #[error("cannot run {program}")]
    Run {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The program failed.
    #[error("{program} failed ({status}): {stderr}")]
    Failed {
        /// The program with its arguments.
        program: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it said.
        stderr: String,
    },
}

/// How `restore` treats what is there.
#[derive(Debug, Clone, Copy, Default)]
pub struct Restore {
    /// Flush whole tables first; otherwise only the chains declared in the input are replaced.
    pub flush_tables: bool,
    /// Set the counters given in the input.
    pub counters: bool,
}

/// Where [`Iptables::ensure_rule`] puts a rule that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// Before all others.
    Prepend,
    /// After all others.
    Append,
}

/// The iptables programs of one family and flavour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Iptables {
    family: Family,
    flavour: Flavour,
}

impl Iptables {
    /// The programs of a known flavour.
    pub fn new(family: Family, flavour: Flavour) -> Self {
        Self { family, flavour }
    }

    /// Finds the flavour in use: that with Kubernetes' hint chain, else that with more rules, else the system's default.
    pub async fn detect(family: Family) -> Self {
        let mut saved = Vec::new();
        for flavour in [Flavour::Nft, Flavour::Legacy] {
            let iptables = Self { family, flavour };
            match iptables.save_mangle().await {
                Some(text) if has_hint(&text) => return iptables,
                Some(_) => saved.push((rule_count(&iptables.save_all().await.unwrap_or_default()), flavour)),
                None => {}
            }
        }
        let busiest = saved.iter().copied().max_by_key(|(rules, _)| *rules).filter(|(rules, _)| *rules > 0);
        let flavour = busiest.map_or(Flavour::Plain, |(_, flavour)| flavour);
        Self { family, flavour }
    }

    /// The IP family.
    pub fn family(&self) -> Family {
        self.family
    }

    /// The flavour.
    pub fn flavour(&self) -> Flavour {
        self.flavour
    }

    /// The program name for a suffix: `""`, `"-save"` or `"-restore"`.
    fn program(&self, suffix: &str) -> String {
        let base = match self.family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        let flavour = match self.flavour {
            Flavour::Nft => "-nft",
            Flavour::Legacy => "-legacy",
            Flavour::Plain => "",
        };
        format!("{base}{flavour}{suffix}")
    }

    async fn save_mangle(&self) -> Option<String> {
        run(&self.program("-save"), &["-t", "mangle"], None).await.ok()
    }

    async fn save_all(&self) -> Result<String, Error> {
        run(&self.program("-save"), &[], None).await
    }

    /// The rules of one table as `iptables-save` prints them.
    pub async fn save(&self, table: &str) -> Result<String, Error> {
        run(&self.program("-save"), &["-t", table], None).await
    }

    /// Applies a whole rule set in one transaction per table.
    pub async fn restore(&self, rules: &str, options: Restore) -> Result<(), Error> {
        let mut args = vec!["-w", LOCK_WAIT];
        if !options.flush_tables {
            args.push("--noflush");
        }
        if options.counters {
            args.push("--counters");
        }
        run(&self.program("-restore"), &args, Some(rules)).await.map(drop)
    }

    /// Runs `iptables` with these arguments and returns what it prints.
    pub async fn run(&self, args: &[&str]) -> Result<String, Error> {
        let args: Vec<&str> = ["-w", LOCK_WAIT].into_iter().chain(args.iter().copied()).collect();
        run(&self.program(""), &args, None).await
    }

    /// Whether a chain exists.
    pub async fn chain_exists(&self, table: &str, chain: &str) -> Result<bool, Error> {
        absent_is_false(self.run(&["-t", table, "-n", "-L", chain, "1"]).await)
    }

    /// Makes sure that a chain exists; its rules are left alone. True when it was made.
    pub async fn ensure_chain(&self, table: &str, chain: &str) -> Result<bool, Error> {
        if self.chain_exists(table, chain).await? {
            return Ok(false);
        }
        self.run(&["-t", table, "-N", chain]).await.map(|_| true)
    }

    /// Empties and deletes a chain, if it exists.
    pub async fn delete_chain(&self, table: &str, chain: &str) -> Result<(), Error> {
        if self.chain_exists(table, chain).await? {
            self.run(&["-t", table, "-F", chain]).await?;
            self.run(&["-t", table, "-X", chain]).await?;
        }
        Ok(())
    }

    /// Whether a rule exists.
    pub async fn rule_exists(&self, table: &str, chain: &str, rule: &[&str]) -> Result<bool, Error> {
        absent_is_false(self.with_rule(table, "-C", chain, rule).await)
    }

    /// Makes sure that a rule exists. True when it was added.
    pub async fn ensure_rule(
        &self,
        position: Position,
        table: &str,
        chain: &str,
        rule: &[&str],
    ) -> Result<bool, Error> {
        if self.rule_exists(table, chain, rule).await? {
            return Ok(false);
        }
        let verb = match position {
            Position::Prepend => "-I",
            Position::Append => "-A",
        };
        self.with_rule(table, verb, chain, rule).await.map(|_| true)
    }

    /// Deletes a rule, if it exists.
    pub async fn delete_rule(&self, table: &str, chain: &str, rule: &[&str]) -> Result<(), Error> {
        while self.rule_exists(table, chain, rule).await? {
            self.with_rule(table, "-D", chain, rule).await?;
        }
        Ok(())
    }

    async fn with_rule(&self, table: &str, verb: &str, chain: &str, rule: &[&str]) -> Result<String, Error> {
        let args: Vec<&str> = ["-t", table, verb, chain].into_iter().chain(rule.iter().copied()).collect();
        self.run(&args).await
    }
}

/// Exit status 1 (and 2 for some versions of `-C`) means that the thing asked about is not there.
fn absent_is_false(result: Result<String, Error>) -> Result<bool, Error> {
    match result {
        Ok(_) => Ok(true),
        Err(Error::Failed { status, .. }) if matches!(status.code(), Some(1 | 2)) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn run(program: &str, args: &[&str], input: Option<&str>) -> Result<String, Error> {
    let failed = |source| Error::Run { program: program.to_owned(), source };
    let mut child = Command::new(program)
        .args(args)
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let stdin = child.stdin.take();
    let feed = async {
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            // A program that refuses its input early says why on standard error.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    let ((), output) = tokio::join!(feed, child.wait_with_output());
    let output = output.map_err(failed)?;
    if !output.status.success() {
        return Err(Error::Failed {
            program: [&[program], args].concat().join(" "),
            status: output.status,
            stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn has_hint(saved: &str) -> bool {
    chains(saved).any(|chain| chain == HINT_CHAIN || chain == CANARY_CHAIN)
}

fn rule_count(saved: &str) -> usize {
    saved.lines().filter(|line| line.starts_with("-A")).count()
}

/// The names of the chains in what `iptables-save` printed.
pub fn chains(saved: &str) -> impl Iterator<Item = &str> {
    saved.lines().filter_map(|line| line.strip_prefix(':')).filter_map(|line| line.split(' ').next())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVED: &str =
        "*mangle\n:PREROUTING ACCEPT [0:0]\n:KUBE-IPTABLES-HINT - [0:0]\n-A PREROUTING -j X\nCOMMIT\n";

    #[test]
    fn the_hint_chain_is_found_in_saved_rules() {
        assert!(has_hint(SAVED));
        assert!(!has_hint(":KUBE-IPTABLES-HINTS - [0:0]\n"));
        assert_eq!(rule_count(SAVED), 1);
        assert_eq!(chains(SAVED).collect::<Vec<_>>(), ["PREROUTING", "KUBE-IPTABLES-HINT"]);
    }

    #[test]
    fn programs_are_named_by_family_and_flavour() {
        for (family, flavour, suffix, name) in [
            (Family::V4, Flavour::Plain, "", "iptables"),
            (Family::V4, Flavour::Nft, "-restore", "iptables-nft-restore"),
            (Family::V6, Flavour::Legacy, "-save", "ip6tables-legacy-save"),
        ] {
            assert_eq!(Iptables::new(family, flavour).program(suffix), name);
        }
    }
}

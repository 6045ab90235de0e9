//! Flags that are taken only with values which ask for nothing but what the server does anyway; others are refused with
//! the reason. They are rows of `data/flags.txt`.

use std::str::FromStr;

use clap::{Arg, ArgAction, ArgMatches, Command, Error, FromArgMatches};
use daemon::GoDuration;

const TABLE: &str = include_str!("../../data/flags.txt");

/// A row of the table.
#[derive(Clone, Copy, Debug)]
struct Row {
    name: &'static str,
    kind: &'static str,
    values: &'static str,
    why: &'static str,
}

fn rows() -> impl Iterator<Item = Row> {
    TABLE.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let mut cells = line.split(" |").map(str::trim);
        Some(Row { name: cells.next()?, kind: cells.next()?, values: cells.next()?, why: cells.next()? })
    })
}

impl Row {
    /// True when both texts stand for the same value.
    fn same(self, one: &str, other: &str) -> bool {
        fn parsed<T: FromStr + PartialEq>(one: &str, other: &str) -> bool {
            matches!((one.parse::<T>(), other.parse::<T>()), (Ok(one), Ok(other)) if one == other)
        }
        match self.kind {
            "duration" => parsed::<GoDuration>(one, other),
            "int" | "float" | "quantity" => parsed::<f64>(one, other),
            "bool" => {
                let truth = |text: &str| match text {
                    "true" | "1" | "t" | "T" | "TRUE" | "True" => Some(true),
                    "false" | "0" | "f" | "F" | "FALSE" | "False" => Some(false),
                    _ => None,
                };
                truth(one).is_some() && truth(one) == truth(other)
            }
            _ => one.trim_matches(['[', ']']) == other,
        }
    }

    fn check(self, value: &str) -> Result<(), String> {
        if self.values.split(';').any(|known| self.same(value, known)) {
            return Ok(());
        }
        Err(format!("--{}={value} is not supported: {}", self.name, self.why))
    }
}

/// The flags that were given, of those in the table.
#[derive(Clone, Debug, Default)]
pub struct FixedFlags(Vec<(Row, String)>);

impl FixedFlags {
    /// Refuses what is not supported.
    ///
    /// # Errors
    /// The first flag that is not, and why.
    pub fn check(&self) -> Result<(), String> {
        self.0.iter().try_for_each(|(row, value)| row.check(value))
    }
}

impl clap::Args for FixedFlags {
    fn augment_args(command: Command) -> Command {
        rows().fold(command, |command, row| {
            let arg =
                Arg::new(row.name).long(row.name).help(format!("Refused with most values: {}.", row.why));
            command.arg(match row.kind {
                "bool" => arg
                    .action(ArgAction::Set)
                    .num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("true"),
                _ => arg.action(ArgAction::Append),
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for FixedFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        for row in rows() {
            let values = matches.get_many::<String>(row.name).into_iter().flatten();
            self.0.extend(values.map(|value| (row, value.clone())));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        fixed: FixedFlags,
    }

    fn check(flag: &str, want: &str) {
        let line = Line::try_parse_from(["x", flag]).unwrap();
        assert_eq!(line.fixed.check().err().unwrap_or_default(), want, "{flag}");
    }

    #[test]
    fn only_values_that_change_nothing_are_taken() {
        check("--kubernetes-service-node-port=0.0", "");
        check("--shutdown-watch-termination-grace-period=0", "");
        check("--storage-initialization-timeout=60s", "");
        check("--watch-cache", "");
        check("--tls-min-version=VersionTLS12", "");
        check("--tls-curve-preferences=[]", "");
        check(
            "--watch-cache=false",
            "--watch-cache=false is not supported: everything is served from watch caches",
        );
        check(
            "--kubernetes-service-node-port=1",
            "--kubernetes-service-node-port=1 is not supported: the Service kubernetes has a cluster address only",
        );
        check(
            "--watch-cache=perhaps",
            "--watch-cache=perhaps is not supported: everything is served from watch caches",
        );
    }

    #[test]
    fn every_row_has_a_reason_and_takes_its_values() {
        let mut names: Vec<&str> = rows().map(|r| r.name).collect();
        assert!(names.is_sorted());
        names.dedup();
        assert_eq!(names.len(), rows().count());
        for row in rows() {
            assert!(!row.why.is_empty(), "{}", row.name);
            for value in row.values.split(';') {
                assert_eq!(row.check(value), Ok(()), "{}", row.name);
            }
        }
    }
}

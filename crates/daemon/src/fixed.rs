//! Flags that are taken only with values which ask for nothing but what the daemon does anyway; others are refused with
//! the reason. They are rows of a table of the daemon's: `name | type | values, the default first | why no other value`.

use std::marker::PhantomData;
use std::str::FromStr;

use clap::{ArgMatches, Command, Error, FromArgMatches};

use crate::GoDuration;
use crate::flags::{boolean, of_kind};

/// Names the table of a daemon.
pub trait Table: Clone {
    /// The rows; lines that begin with `#` are for readers.
    const ROWS: &'static str;
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
struct Row {
    name: &'static str,
    kind: &'static str,
    values: &'static str,
    why: &'static str,
}

fn rows(table: &'static str) -> impl Iterator<Item = Row> {
    table.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
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
            "bool" => boolean(one).is_some() && boolean(one) == boolean(other),
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
#[derive(Clone, Debug)]
pub struct FixedFlags<T> {
    given: Vec<(Row, String)>,
    table: PhantomData<T>,
}

impl<T> Default for FixedFlags<T> {
    fn default() -> Self {
        Self { given: Vec::new(), table: PhantomData }
    }
}

/// Whether a table is in order: sorted, with a reason in every row, and every row takes the values it names.
///
/// # Errors
/// The first row that is not.
pub fn check_table<T: Table>() -> Result<(), String> {
    let mut before = "";
    for row in rows(T::ROWS) {
        if row.name <= before || row.why.is_empty() {
            return Err(format!("the row of {} is out of place, or without a reason", row.name));
        }
        before = row.name;
        row.values.split(';').try_for_each(|value| row.check(value))?;
    }
    Ok(())
}

impl<T: Table> FixedFlags<T> {
    /// Refuses what is not supported.
    ///
    /// # Errors
    /// The first flag that is not, and why.
    pub fn check(&self) -> Result<(), String> {
        self.given.iter().try_for_each(|(row, value)| row.check(value))
    }
}

impl<T: Table> clap::Args for FixedFlags<T> {
    fn augment_args(command: Command) -> Command {
        rows(T::ROWS).fold(command, |command, row| {
            command.arg(of_kind(row.name, row.kind, format!("Refused with most values: {}.", row.why)))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<T: Table> FromArgMatches for FixedFlags<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        for row in rows(T::ROWS) {
            let values = matches.get_many::<String>(row.name).into_iter().flatten();
            self.given.extend(values.map(|value| (row, value.clone())));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Clone)]
    struct Rows;

    impl Table for Rows {
        const ROWS: &'static str = "# Flags.\n\
            curves | strings | | they are fixed\n\
            node-port | int | 0 | there is none\n\
            timeout | duration | 1m0s | it is fixed\n\
            watch-cache | bool | true | everything is served from watch caches\n";
    }

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        fixed: FixedFlags<Rows>,
    }

    fn check(flag: &str, want: &str) {
        let line = Line::try_parse_from(["x", flag]).unwrap();
        assert_eq!(line.fixed.check().err().unwrap_or_default(), want, "{flag}");
    }

    #[test]
    fn only_values_that_change_nothing_are_taken() {
        check("--node-port=0.0", "");
        check("--timeout=60s", "");
        check("--watch-cache", "");
        check("--curves=[]", "");
        check(
            "--watch-cache=false",
            "--watch-cache=false is not supported: everything is served from watch caches",
        );
        check("--node-port=1", "--node-port=1 is not supported: there is none");
        check(
            "--watch-cache=perhaps",
            "--watch-cache=perhaps is not supported: everything is served from watch caches",
        );
    }

    #[test]
    fn tables_are_checked() {
        #[derive(Clone)]
        struct Unsorted;
        impl Table for Unsorted {
            const ROWS: &'static str = "b | int | 0 | why\na | int | 0 | why\n";
        }
        #[derive(Clone)]
        struct Silent;
        impl Table for Silent {
            const ROWS: &'static str = "a | int | 0 |\n";
        }
        assert_eq!(check_table::<Rows>(), Ok(()));
        assert!(check_table::<Unsorted>().is_err());
        assert!(check_table::<Silent>().is_err());
    }
}

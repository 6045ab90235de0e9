//! Files in which upstream's kubelet keeps what it has given away, with checksums as it computes them: of what Go's `spew`
//! prints of the data. Either kubelet goes on with the other's files.

use std::fs;
use std::io;
use std::path::Path;

/// A value as Go's reflection sees it. Types are named as Go names them, package and all.
pub(crate) enum Dump {
    /// A text.
    Text(String),
    /// A text of some type.
    Named(&'static str, String),
    /// A number of some type.
    Number(&'static str, i128),
    /// A slice; none stands for nil.
    List(&'static str, Option<Vec<Dump>>),
    /// A map, in the order of its keys; none stands for nil.
    Map(&'static str, Option<Vec<(Dump, Dump)>>),
    /// A structure with its fields.
    Struct(&'static str, Vec<(&'static str, Dump)>),
    /// What a pointer points to.
    Pointer(&'static str, Box<Dump>),
}

impl Dump {
    /// A slice of texts.
    pub(crate) fn texts<'t>(texts: impl IntoIterator<Item = &'t String>) -> Self {
        Self::List("[]string", Some(texts.into_iter().map(|text| Self::Text(text.clone())).collect()))
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "string",
            Self::Number(kind, _)
            | Self::Named(kind, _)
            | Self::List(kind, _)
            | Self::Map(kind, _)
            | Self::Struct(kind, _)
            | Self::Pointer(kind, _) => kind,
        }
    }

    /// The text that is hashed.
    pub(crate) fn print(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, true);
        out
    }

    fn write(&self, out: &mut String, typed: bool) {
        if typed {
            out.extend(["(", self.kind(), ")"]);
        }
        match self {
            Self::Text(text) | Self::Named(_, text) => out.push_str(text),
            Self::Pointer(_, to) => {
                if !typed {
                    out.push_str("<*>");
                }
                to.write(out, false);
            }
            Self::Number(_, number) => out.push_str(&number.to_string()),
            Self::List(_, None) | Self::Map(_, None) => out.push_str("<nil>"),
            Self::List(_, Some(items)) => {
                separated(out, ("[", "]"), items, |out, item| item.write(out, false));
            }
            Self::Map(_, Some(entries)) => separated(out, ("map[", "]"), entries, |out, (key, value)| {
                key.write(out, false);
                out.push(':');
                value.write(out, false);
            }),
            Self::Struct(_, fields) => separated(out, ("{", "}"), fields, |out, (name, value)| {
                out.extend([name, ":"]);
                value.write(out, true);
            }),
        }
    }
}

fn separated<T>(out: &mut String, (open, close): (&str, &str), items: &[T], each: impl Fn(&mut String, &T)) {
    out.push_str(open);
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(' ');
        }
        each(out, item);
    }
    out.push_str(close);
}

/// FNV-1a, in 32 bits.
pub(crate) fn checksum(dump: &str) -> u64 {
    let hash =
        dump.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    u64::from(hash)
}

/// Puts a file in place all at once, readable by its owner alone.
pub(crate) fn write(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut name = path.to_owned().into_os_string();
    name.push(".tmp");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&name)?;
    file.write_all(text.as_bytes())?;
    file.sync_data()?;
    fs::rename(&name, path)
}

/// The text of a file; none when there is no such file.
pub(crate) fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_printed_as_go_does() {
        let inner = Dump::Struct(
            "p.Inner",
            vec![("N", Dump::Number("int", -1)), ("L", Dump::List("[]string", None))],
        );
        let entries = vec![(Dump::Text("k".to_owned()), inner)];
        let outer = Dump::Struct(
            "p.Outer",
            vec![("S", Dump::Text("x y".to_owned())), ("M", Dump::Map("p.M", Some(entries)))],
        );
        assert_eq!(outer.print(), "(p.Outer){S:(string)x y M:(p.M)map[k:{N:(int)-1 L:([]string)<nil>}]}");
        let pointer = || Dump::Pointer("*p.T", Box::new(Dump::Named("p.Name", "x".to_owned())));
        let list = Dump::List("[]*p.T", Some(vec![pointer()]));
        let fields = vec![("P", pointer()), ("L", list), ("N", Dump::Named("p.Name", "y".to_owned()))];
        let pointers = Dump::Struct("*p.Outer", fields).print();
        assert_eq!(pointers, "(*p.Outer){P:(*p.T)x L:([]*p.T)[<*>x] N:(p.Name)y}");
        assert_eq!(Dump::texts(&["a".to_owned(), "b".to_owned()]).print(), "([]string)[a b]");
    }
}

//! Facts about the machine that nodes report.

use std::fs;
use std::io;

use nix::sys::utsname::uname;

/// What identifies and describes the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// `/etc/machine-id` or, failing that, the D-Bus one; empty where there is none.
    pub machine_id: String,
    /// The DMI product UUID, else the machine id.
    pub system_uuid: String,
    /// Changes with every boot.
    pub boot_id: String,
    /// The kernel's release.
    pub kernel_version: String,
    /// The distribution's own name.
    pub os_image: String,
    /// Go's name of the processor architecture, as nodes are labelled.
    pub architecture: String,
    /// The host name.
    pub hostname: String,
    /// How many processors are online.
    pub cpus: usize,
    /// Total memory in bytes.
    pub memory: u64,
    /// Total swap in bytes.
    pub swap: u64,
    /// Whether the kernel confines processes by AppArmor profiles.
    pub app_armor: bool,
}

/// Reads the facts.
pub fn read() -> io::Result<Facts> {
    let uts = uname()?;
    let machine_id = first_of(&["/etc/machine-id", "/var/lib/dbus/machine-id"]);
    let system_uuid = first_of(&["/sys/class/dmi/id/product_uuid"]);
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    Ok(Facts {
        system_uuid: if system_uuid.is_empty() { machine_id.clone() } else { system_uuid },
        machine_id,
        boot_id: first_of(&["/proc/sys/kernel/random/boot_id"]),
        kernel_version: uts.release().to_string_lossy().into_owned(),
        os_image: os_image(&first_of(&["/etc/os-release", "/usr/lib/os-release"])),
        architecture: architecture(&uts.machine().to_string_lossy()),
        hostname: uts.nodename().to_string_lossy().into_owned(),
        cpus: std::thread::available_parallelism()?.get(),
        memory: meminfo_bytes(&meminfo, "MemTotal").unwrap_or_default(),
        swap: meminfo_bytes(&meminfo, "SwapTotal").unwrap_or_default(),
        app_armor: first_of(&["/sys/module/apparmor/parameters/enabled"]).starts_with('Y'),
    })
}

fn first_of(paths: &[&str]) -> String {
    let mut texts = paths.iter().filter_map(|path| fs::read_to_string(path).ok());
    texts.next().map(|text| text.trim().to_owned()).unwrap_or_default()
}

fn os_image(os_release: &str) -> String {
    let line = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    line.map_or_else(|| "Unknown".to_owned(), |name| name.trim_matches(['"', '\'']).to_owned())
}

fn architecture(machine: &str) -> String {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "armv7l" | "armv6l" => "arm",
        "i686" | "i386" => "386",
        other => other,
    }
    .to_owned()
}

/// A field of `/proc/meminfo` in bytes.
pub fn meminfo_bytes(meminfo: &str, field: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_parsed() {
        assert_eq!(
            os_image("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"),
            "Debian GNU/Linux 12 (bookworm)"
        );
        assert_eq!(os_image(""), "Unknown");
        assert_eq!(meminfo_bytes("MemTotal:       2048 kB\nMemFree: 1 kB\n", "MemTotal"), Some(2 << 20));
        assert_eq!(meminfo_bytes("MemTotal: 1 kB\n", "Mem"), None);
        assert_eq!(architecture("x86_64"), "amd64");
    }

    #[test]
    fn this_machine_has_facts() {
        let facts = read().unwrap();
        assert!(facts.cpus > 0 && facts.memory > 0);
        assert!(!facts.boot_id.is_empty() && !facts.kernel_version.is_empty());
    }
}

//! System images: one static binary each, FROM scratch, as a docker archive that `ctr images import` reads.
//!
//! Source: <https://github.com/moby/docker-image-spec/blob/main/spec.md>.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::cluster::{Cluster, DATA, PAUSE_IMAGE};
use crate::process::CONTAINERD_SOCKET;

/// Images by reference and the binary they hold.
pub const IMAGES: [(&str, &str); 4] = [
    (PAUSE_IMAGE, "pause"),
    ("ferrite.local/coredns-rs:latest", "coredns-rs"),
    ("ferrite.local/local-path-provisioner:latest", "local-path-provisioner"),
    ("ferrite.local/ingress-controller:latest", "ingress-controller"),
];

/// Daemons that need nothing but their binary, beyond those of [`IMAGES`]. The others run programs of the system
/// (iptables, mount): their images are built on one, as `deploy/images/Containerfile` says.
const ALONE: [&str; 3] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// Writes an archive `NAME.tar` with image `ferrite.local/NAME:latest` for every daemon that needs nothing else.
pub fn write_all(bin_dir: Option<&Path>, folder: &Path) -> Result<()> {
    let bin_dir = crate::cluster::bin_dir(bin_dir)?;
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let alone = ALONE.map(|name| (format!("ferrite.local/{name}:latest"), name));
    let add_ons = IMAGES.map(|(reference, name)| (reference.to_owned(), name));
    for (reference, name) in alone.into_iter().chain(add_ons) {
        let content = read(&bin_dir.join(name))?;
        let archive = folder.join(format!("{name}.tar"));
        std::fs::write(&archive, pack(&reference, name, &content)?)
            .with_context(|| format!("writing {}", archive.display()))?;
        println!("{reference} is in {}", archive.display());
    }
    Ok(())
}

fn read(binary: &Path) -> Result<Vec<u8>> {
    std::fs::read(binary)
        .with_context(|| format!("the binary {} is missing: build the workspace", binary.display()))
}

/// Makes and imports the images whose binary has changed since the last time.
pub fn ensure(cluster: &Cluster) -> Result<()> {
    let folder = Path::new(DATA).join("images");
    crate::files::folder_at(&folder)?;
    let present = list()?;
    for (reference, binary) in IMAGES {
        let content = read(&cluster.binary(binary))?;
        let digest = hex(&content);
        let note = folder.join(format!("{binary}.sha256"));
        if present.contains(reference) && std::fs::read_to_string(&note).is_ok_and(|d| d == digest) {
            continue;
        }
        let archive: PathBuf = folder.join(format!("{binary}.tar"));
        std::fs::write(&archive, pack(reference, binary, &content)?)
            .with_context(|| format!("writing {}", archive.display()))?;
        ctr(&["images", "import", &archive.to_string_lossy()])?;
        std::fs::remove_file(&archive).with_context(|| format!("removing {}", archive.display()))?;
        crate::files::write(&note, digest.as_bytes(), 0o644)?;
    }
    Ok(())
}

/// Runs `ctr` on the cluster's containerd.
fn ctr(words: &[&str]) -> Result<String> {
    let output = Command::new("ctr")
        .args(["--address", CONTAINERD_SOCKET, "--namespace", "k8s.io"])
        .args(words)
        .output()
        .context("running ctr: is the package containerd installed?")?;
    if !output.status.success() {
        bail!("ctr {} failed: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn list() -> Result<String> {
    ctr(&["images", "list", "--quiet"])
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// The archive of an image that holds one program at `/NAME`.
fn pack(reference: &str, name: &str, binary: &[u8]) -> Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    let mut folder = |path: &str, mode| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(mode);
        header.set_size(0);
        header.set_cksum();
        layer.append_data(&mut header, path, std::io::empty())
    };
    folder("tmp/", 0o1777)?;
    folder("etc/", 0o755)?;
    append(
        &mut layer,
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/:/none\nnobody:x:65534:65534:nobody:/:/none\n",
    )?;
    append(&mut layer, name, 0o755, binary)?;
    let layer = layer.into_inner()?;
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {"Entrypoint": [format!("/{name}")], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex(&layer))]},
        "history": [{"created_by": "ferrite"}],
    });
    let config = serde_json::to_vec(&config)?;
    let config_name = format!("{}.json", hex(&config));
    let manifest = json!([{"Config": config_name, "RepoTags": [reference], "Layers": ["layer.tar"]}]);
    let mut archive = tar::Builder::new(Vec::new());
    append(&mut archive, &config_name, 0o644, &config)?;
    append(&mut archive, "layer.tar", 0o644, &layer)?;
    append(&mut archive, "manifest.json", 0o644, &serde_json::to_vec(&manifest)?)?;
    Ok(archive.into_inner()?)
}

fn append(archive: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, content: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    header.set_cksum();
    archive.append_data(&mut header, path, content).with_context(|| format!("packing {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_holds_its_program_and_says_so() {
        let archive = pack("x.local/a:1", "a", b"program").unwrap();
        let mut names = Vec::new();
        for entry in tar::Archive::new(archive.as_slice()).entries().unwrap() {
            names.push(entry.unwrap().path().unwrap().to_string_lossy().into_owned());
        }
        assert_eq!(names.len(), 3);
        assert_eq!(names[1..], ["layer.tar", "manifest.json"]);
    }
}

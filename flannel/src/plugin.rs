//! The CNI plugin: turns its configuration and `subnet.env` into that of another plugin (normally `bridge` with `host-local`)
//! and runs that. What ADD used is kept until DEL, which must undo just that.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};

const VERSIONS: &str =
    r#"{"cniVersion":"1.0.0","supportedVersions":["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0"]}"#;

/// Runs one CNI command, as the environment and standard input say.
pub fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(e) => {
            let error = json!({"cniVersion": "1.0.0", "code": 999, "msg": format!("{e:#}")});
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn variable(name: &str) -> anyhow::Result<String> {
    std::env::var(name).with_context(|| format!("required env variables [{name}] missing"))
}

fn run() -> anyhow::Result<ExitCode> {
    let command = variable("CNI_COMMAND")?;
    if command == "VERSION" {
        println!("{VERSIONS}");
        return Ok(ExitCode::SUCCESS);
    }
    let mut input = String::new();
    std::io::stdin().read_to_string(&mut input).context("standard input")?;
    let config: Value = serde_json::from_str(&input).context("network configuration")?;
    let text = |name: &str, default: &str| config[name].as_str().unwrap_or(default).to_owned();
    let kept = kept_path(&text("dataDir", "/var/lib/cni/flannel"), &variable("CNI_CONTAINERID")?)?;
    match command.as_str() {
        "ADD" => {
            let path = text("subnetFile", "/run/flannel/subnet.env");
            let env = fs::read_to_string(&path).with_context(|| format!("failed to load {path}"))?;
            let delegate = delegate(&config, &Subnet::parse(&env)?)?.to_string();
            fs::create_dir_all(kept.parent().context("the directory of kept configurations")?)?;
            fs::write(&kept, &delegate).with_context(|| format!("write {}", kept.display()))?;
            invoke(&delegate)
        }
        "DEL" => {
            // Deleted before, or never added: nothing to undo.
            let Ok(delegate) = fs::read_to_string(&kept) else { return Ok(ExitCode::SUCCESS) };
            let code = invoke(&delegate)?;
            if code == ExitCode::SUCCESS {
                fs::remove_file(&kept).with_context(|| format!("remove {}", kept.display()))?;
            }
            Ok(code)
        }
        "CHECK" => {
            let mut delegate: Value = serde_json::from_str(&fs::read_to_string(&kept)?)?;
            delegate["prevResult"] = config["prevResult"].clone();
            invoke(&delegate.to_string())
        }
        other => bail!("unknown CNI_COMMAND: {other}"),
    }
}

fn kept_path(directory: &str, container: &str) -> anyhow::Result<PathBuf> {
    let safe = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if container.is_empty() || container.starts_with('.') || !container.chars().all(safe) {
        bail!("invalid container id {container:?}");
    }
    Ok(Path::new(directory).join(container))
}

/// Runs the plugin that a configuration names, with our own environment; its answer is ours.
fn invoke(delegate: &str) -> anyhow::Result<ExitCode> {
    let config: Value = serde_json::from_str(delegate).context("kept configuration")?;
    let name = config["type"].as_str().unwrap_or_default();
    let path = variable("CNI_PATH")?;
    let candidates = path.split(':').map(|dir| Path::new(dir).join(name));
    let plugin = candidates.into_iter().find(|p| p.is_file());
    let plugin = plugin.with_context(|| format!("failed to find plugin {name:?} in path [{path}]"))?;
    let mut child = Command::new(&plugin)
        .stdin(Stdio::piped())
        .spawn()
        .with_context(|| format!("run {}", plugin.display()))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(delegate.as_bytes()).context("hand over the configuration")?;
    }
    let status = child.wait()?;
    Ok(status.code().and_then(|c| u8::try_from(c).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// What flanneld wrote.
#[derive(Debug, Default, PartialEq, Eq)]
struct Subnet {
    network: String,
    subnet: String,
    mtu: u64,
    masquerade: bool,
}

impl Subnet {
    fn parse(env: &str) -> anyhow::Result<Self> {
        let get = |name: &str| {
            let value = env.lines().find_map(|l| l.trim().strip_prefix(name)?.strip_prefix('='));
            value.map(str::to_owned).with_context(|| format!("{name} is missing"))
        };
        let subnet: ipnet::Ipv4Net = get("FLANNEL_SUBNET")?.parse().context("FLANNEL_SUBNET")?;
        Ok(Self {
            network: get("FLANNEL_NETWORK")?,
            subnet: subnet.trunc().to_string(),
            mtu: get("FLANNEL_MTU")?.parse().context("FLANNEL_MTU")?,
            masquerade: get("FLANNEL_IPMASQ")? == "true",
        })
    }
}

/// The configuration of the plugin that does the work.
fn delegate(config: &Value, subnet: &Subnet) -> anyhow::Result<Value> {
    let mut delegate = match &config["delegate"] {
        Value::Null => Map::new(),
        Value::Object(given) => given.clone(),
        _ => bail!("'delegate' must be an object"),
    };
    for field in ["name", "ipam"] {
        if delegate.contains_key(field) {
            bail!("'delegate' dictionary must not have '{field}' field, it'll be set by flannel");
        }
    }
    let mut default = |name: &str, value: Value| {
        delegate.entry(name).or_insert(value);
    };
    default("type", json!("bridge"));
    // Either flanneld masquerades, or the plugin does.
    default("ipMasq", json!(!subnet.masquerade));
    default("mtu", json!(subnet.mtu));
    for field in ["cniVersion", "runtimeConfig"] {
        if !config[field].is_null() {
            default(field, config[field].clone());
        }
    }
    if delegate["type"] == "bridge" {
        delegate.entry("isGateway").or_insert(json!(true));
    }
    delegate.insert("name".to_owned(), config["name"].clone());
    delegate.insert(
        "ipam".to_owned(),
        json!({
            "type": "host-local",
            "ranges": [[{"subnet": subnet.subnet}]],
            "routes": [{"dst": subnet.network}],
        }),
    );
    Ok(Value::Object(delegate))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENV: &str =
        "FLANNEL_NETWORK=10.42.0.0/16\nFLANNEL_SUBNET=10.42.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";

    #[test]
    fn the_bridge_plugin_gets_what_flanneld_knows() {
        let subnet = Subnet::parse(ENV).unwrap();
        let config = json!({
            "name": "cbr0", "type": "flannel", "cniVersion": "0.3.1",
            "delegate": {"hairpinMode": true, "isDefaultGateway": true},
        });
        let want = json!({
            "name": "cbr0", "type": "bridge", "cniVersion": "0.3.1",
            "hairpinMode": true, "isDefaultGateway": true, "isGateway": true, "ipMasq": false, "mtu": 1450,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": "10.42.1.0/24"}]],
                "routes": [{"dst": "10.42.0.0/16"}],
            },
        });
        assert_eq!(delegate(&config, &subnet).unwrap(), want);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let subnet = Subnet::parse(ENV).unwrap();
        for bad in [json!({"delegate": []}), json!({"delegate": {"ipam": {}}})] {
            assert!(delegate(&bad, &subnet).is_err(), "{bad}");
        }
        assert!(Subnet::parse("FLANNEL_NETWORK=10.42.0.0/16\n").is_err());
        for id in ["", "..", "a/b"] {
            assert!(kept_path("/d", id).is_err(), "{id}");
        }
    }
}

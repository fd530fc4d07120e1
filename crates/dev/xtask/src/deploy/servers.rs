//! The playbooks, on servers that are containers with systemd.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use super::chat::Chat;
use super::engine::Mounting;
use super::{Place, ensure, eventually, strangers};
use crate::dist::{Step, at, create_folder, output, read, shell, write};

const PARTS: [&str; 5] = ["broker", "database", "chat", "sse", "web"];
const UNITS: [&str; 2] = ["chat-service", "broadcast-sse"];

pub(super) fn playbooks_are_clean(place: &Place) -> Step {
    let mut lint = Command::new("ansible-lint");
    lint.args(["--offline", "--nocolor"]);
    shell(lint.current_dir(place.unpacked.join("deploy/ansible")))?;
    for inventory in ["local", "staging", "production"] {
        let hosts = format!("{inventory}/hosts.ini");
        for playbook in ["install.yml", "uninstall.yml"] {
            let mut check = Command::new("ansible-playbook");
            check.args(["--syntax-check", "-i", &hosts, playbook]);
            shell(check.current_dir(place.unpacked.join("deploy/ansible")))?;
        }
    }
    Ok(())
}

/// Everything on one server, with SQLite and the whole sandbox of the units.
pub(super) fn one_server(place: &Place) -> Step {
    let engine = &place.engine;
    engine.server("one", &["18801:80"], Mounting::Allowed)?;
    let settings = "hark_host: localhost\nhark_in_container: false\n";
    let site = Site::new(
        place,
        "one-server",
        &PARTS.map(|part| (part, vec!["one"])),
        settings,
    )?;
    site.install(&place.packages, &[])?;
    let page = "http://localhost:18801/";
    let chat = Chat::behind(page, Some(&site.password()?));
    chat.carries("by ansible")?;
    chat.is_locked()?;
    site.changes_nothing(&place.packages, &[])?;

    for unit in UNITS {
        let verify = format!("systemd-analyze verify {unit}.service 2>&1");
        let remarks = engine.inside("one", &verify)?;
        ensure(remarks.is_empty(), || remarks)?;
        let exposure = format!("systemd-analyze security {unit}.service | tail -1");
        println!("{}", engine.inside("one", &exposure)?);
    }
    // Ready without a broker, or this would wait for it.
    engine.inside(
        "one",
        "systemctl stop mosquitto && systemctl restart chat-service broadcast-sse",
    )?;
    engine.inside("one", "systemctl start mosquitto")?;
    chat.carries("after the broker was away")?;

    let upgraded = AtomicBool::new(false);
    let taken = std::thread::scope(|scope| {
        let posting = scope.spawn(|| chat.posts_until(&upgraded));
        let installed = site.install(&place.later, &[]);
        upgraded.store(true, Ordering::Relaxed);
        let posted = posting.join().map_err(|_panic| "the poster panicked")?;
        installed.and(posted)
    })?;
    let version = engine.inside("one", "dpkg-query -W -f '${Version}' hark-chat-service")?;
    ensure(version == format!("{}+later", place.version), || version)?;
    chat.has_all(&taken)?;
    chat.carries("after the upgrade")?;
    site.changes_nothing(&place.later, &["--tags", "broker"])?;

    site.install(&place.later, &["--tags", "web", "-e", "hark_open=true"])?;
    Chat::behind(page, None).carries("without a password")?;

    site.play("uninstall.yml", &[])?;
    engine.inside(
        "one",
        "test -s /var/lib/hark/store.sqlite3 && ! test -e /etc/hark",
    )?;
    engine.inside(
        "one",
        "! dpkg-query -W hark-chat-service && ! systemctl is-active chat-service",
    )?;
    Ok(())
}

/// The package of `hark`, installed by hand: started, used, removed and purged.
pub(super) fn package_by_hand(place: &Place) -> Step {
    let engine = &place.engine;
    engine.server("hand", &[], Mounting::Allowed)?;
    let file = format!("hark_{}_{}.deb", place.version, place.architecture);
    let mut copy = engine.docker();
    copy.arg("cp")
        .arg(place.packages.join(file))
        .arg("hand:/hark.deb");
    shell(&mut copy)?;
    let hand = |line: &str| engine.inside("hand", line);
    hand("apt-get update && apt-get install -y /hark.deb")?;
    hand("! systemctl is-enabled hark && ! systemctl is-active hark")?;
    hand("systemctl enable --now hark && hark health")?;
    let post = "hark post 3509fdb5-9ffe-4738-9d4b-0d457c251a72 hello";
    let event = hand(post)?;
    ensure(event.contains("\"seq\":1,"), || event)?;
    hand("systemd-analyze verify hark.service")?;
    // Removed and installed again it has what it had, and runs as the administrator wanted it.
    hand("echo '# mine' >> /etc/hark/hark.toml && apt-get remove -y hark")?;
    hand("! systemctl is-active hark && ! test -e /usr/bin/hark")?;
    hand("apt-get install -y /hark.deb && grep '# mine' /etc/hark/hark.toml")?;
    hand("systemctl start hark")?;
    let event = hand(post)?;
    ensure(event.contains("\"seq\":2,"), || event)?;
    hand("apt-get purge -y hark && ! test -e /etc/hark && test -s /var/lib/hark/store.sqlite3")?;
    Ok(())
}

/// A server for each part, two for each service, with PostgreSQL and TLS between them, in containers that
/// may make no namespaces.
pub(super) fn several_servers(place: &Place) -> Step {
    let servers = [
        "broker", "database", "chat-1", "chat-2", "sse-1", "sse-2", "web",
    ];
    for server in servers {
        let publish: &[&str] = if server == "web" { &["18802:443"] } else { &[] };
        place
            .engine
            .server(server, publish, Mounting::NoNamespaces)?;
    }
    let groups = PARTS.map(|part| match part {
        "chat" => (part, vec!["chat-1", "chat-2"]),
        "sse" => (part, vec!["sse-1", "sse-2"]),
        part => (part, vec![part]),
    });
    let (certificate, key) = own_certificate(place, "localhost", "DNS:localhost")?;
    let settings = format!(
        "hark_host: localhost\nhark_store: postgres\n\
         hark_web_certificate: {certificate}\nhark_web_key: {key}\n"
    );
    let site = Site::new(place, "several-servers", &groups, &settings)?;
    site.install(&place.packages, &[])?;
    let chat = Chat::behind("https://localhost:18802/", Some(&site.password()?));
    chat.carries("from one server to another")?;
    chat.is_locked()?;
    strangers::get_nothing(&place.engine)?;
    // Or all clients would share what one address may have.
    let web = strangers::address(&place.engine, "web")?;
    let trusted = "grep ^trusted_proxies /etc/hark/chat-service.toml";
    let trusted = place.engine.inside("chat-2", trusted)?;
    ensure(trusted.contains(&format!("[\"{web}\"]")), || trusted)?;
    site.changes_nothing(&place.packages, &[])?;

    // A new certificate needs no restart.
    let process = || {
        place
            .engine
            .inside("chat-1", "systemctl show --property MainPID chat-service")
    };
    let shown = || strangers::shown_certificate(&place.engine, "chat-1", 8080);
    let before = (process()?, shown()?);
    remove(&site.inventory.join("secrets/chat-service-chat-1.crt"))?;
    site.install(&place.packages, &["--tags", "chat"])?;
    eventually(|| {
        let shown = shown()?;
        ensure(shown != before.1, || format!("still {shown}"))
    })?;
    let after = process()?;
    ensure(after == before.0, || format!("{after}, not {}", before.0))?;
    chat.carries("with a new certificate")?;

    // The broker's certificate is given, and a firewall does for TLS between the services.
    let address = strangers::address(&place.engine, "broker")?;
    let (given, key) = own_certificate(place, "broker", &format!("IP:{address}"))?;
    let settings = format!(
        "hark_broker_certificate={given} hark_broker_key={key} hark_broker_authority={given} \
         hark_service_tls=false"
    );
    site.install(&place.packages, &["-e", &settings])?;
    let shown = strangers::shown_certificate(&place.engine, "broker", 8883)?;
    let mut look = Command::new("openssl");
    let given = output(look.args(["x509", "-noout", "-serial", "-in", &given]))?;
    ensure(shown == given, || format!("{shown}, not {given}"))?;
    chat.carries("without TLS between the services")?;

    // Whichever is left carries on.
    place
        .engine
        .inside("sse-1", "systemctl stop broadcast-sse")?;
    place
        .engine
        .inside("chat-2", "systemctl stop chat-service")?;
    chat.carries("with two servers less")?;
    Ok(())
}

fn remove(file: &Path) -> Step {
    std::fs::remove_file(file).map_err(|error| at(file, &error))
}

/// A certificate for a subject's alternative name that has signed itself, and its key.
fn own_certificate(place: &Place, file: &str, name: &str) -> Step<(String, String)> {
    let path = |end: &str| place.folder.join(format!("{file}.{end}"));
    let (certificate, key) = (path("crt"), path("key"));
    let mut make = Command::new("openssl");
    make.args(["req", "-x509", "-nodes", "-subj", "/CN=own"])
        .args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        // rustls takes no authority for a server.
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-addext", &format!("subjectAltName={name}"), "-out"])
        .arg(&certificate)
        .arg("-keyout")
        .arg(&key);
    output(&mut make)?;
    Ok((certificate.display().to_string(), key.display().to_string()))
}

/// Servers that are set up together.
struct Site<'place> {
    place: &'place Place,
    inventory: std::path::PathBuf,
}

impl<'place> Site<'place> {
    fn new(
        place: &'place Place,
        name: &str,
        groups: &[(&str, Vec<&str>)],
        settings: &str,
    ) -> Step<Self> {
        let inventory = place.folder.join(name);
        create_folder(&inventory)?;
        let mut hosts = String::new();
        for (group, servers) in groups {
            hosts += &format!("[{group}]\n{}\n\n", servers.join("\n"));
        }
        hosts += &format!("[hark:children]\n{}\n", PARTS.join("\n"));
        write(&inventory.join("hosts.ini"), &hosts)?;
        let connection = "ansible_connection: community.docker.docker";
        create_folder(&inventory.join("group_vars"))?;
        let settings = format!("---\n{connection}\n{settings}");
        write(&inventory.join("group_vars/hark.yml"), &settings)?;
        Ok(Self { place, inventory })
    }

    /// The password in front, which the first installation has made.
    fn password(&self) -> Step<String> {
        let password = read(&self.inventory.join("secrets/front"))?;
        Ok(password.trim().to_owned())
    }

    fn install(&self, packages: &Path, arguments: &[&str]) -> Step<String> {
        let packages = format!("hark_packages={}", packages.display());
        let arguments = [&["-e", &packages], arguments].concat();
        self.play("install.yml", &arguments)
    }

    /// A second run finds everything as it should be.
    fn changes_nothing(&self, packages: &Path, arguments: &[&str]) -> Step {
        let said = self.install(packages, arguments)?;
        let recap = said.split("PLAY RECAP").last().unwrap_or_default();
        let servers = recap.lines().filter(|line| line.contains("ok="));
        ensure(servers.clone().count() > 0, || format!("no recap: {said}"))?;
        let changed: Vec<_> = servers
            .filter(|line| !line.contains("changed=0 "))
            .collect();
        let tasks = || {
            let tasks = said.split("\nTASK ");
            let changed = tasks.filter(|task| task.contains("\nchanged:"));
            changed.collect::<Vec<_>>().join("\n")
        };
        ensure(changed.is_empty(), || format!("{changed:?}:\n{}", tasks()))
    }

    fn play(&self, playbook: &str, arguments: &[&str]) -> Step<String> {
        println!("$ ansible-playbook {playbook} {}", arguments.join(" "));
        let mut play = self.place.engine.command("ansible-playbook");
        play.arg("-i").arg(self.inventory.join("hosts.ini"));
        play.arg(playbook)
            .args(arguments)
            .env("ANSIBLE_NOCOLOR", "1");
        play.current_dir(self.place.unpacked.join("deploy/ansible"));
        let done = play
            .output()
            .map_err(|error| format!("cannot start ansible-playbook: {error}"))?;
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        if done.status.success() {
            return Ok(said);
        }
        Err(format!("{said}{}", String::from_utf8_lossy(&done.stderr)))
    }
}

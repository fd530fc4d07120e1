//! Debian packages, by dpkg-deb: one for each program, with its unit, its configuration and the
//! scripts in `deploy/debian`, and one for the demo page.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Architecture, Dist, Step, at, copy, copy_tree, create_folder, read, shell, write};

/// A package with a program.
struct Package {
    name: &'static str,
    /// The program, its unit and its configuration are called the same.
    program: &'static str,
    /// Whether installing it starts it.
    starts: bool,
    description: &'static str,
}

const PACKAGES: [Package; 4] = [
    Package {
        name: "hark",
        program: "hark",
        // On a server it is the tool beside the services, which have the same ports.
        starts: false,
        description: "chat and live events for web pages: all in one process, and tools\n \
            Takes messages over HTTP, streams them to browsers as server-sent events, with a broker\n \
            and a demo page of its own. Also posts, listens and checks from the command line.",
    },
    Package {
        name: "hark-chat-service",
        program: "chat-service",
        starts: true,
        description: "chat and live events for web pages: takes and stores messages\n \
            Takes messages over HTTP, stores them and publishes them over MQTT; serves history.",
    },
    Package {
        name: "hark-broadcast-sse",
        program: "broadcast-sse",
        starts: true,
        description: "chat and live events for web pages: streams them to browsers\n \
            Streams what chat-service publishes over MQTT to browsers as server-sent events.",
    },
    Package {
        name: "hark-broker",
        program: "broker",
        // Its port may be that of a broker that is there already.
        starts: false,
        description: "chat and live events for web pages: MQTT broker for development\n \
            The broker that is part of hark, alone. Servers use mosquitto or another one.",
    },
];

/// Makes the packages of an architecture.
pub(super) fn packages(dist: &Dist, architecture: Architecture) -> Step {
    for package in PACKAGES {
        let tree = Tree::new(dist, package.name, architecture.debian)?;
        let program = package.program;
        let unit = format!("{program}.service");
        tree.install(
            &dist.program(architecture, program),
            &format!("usr/bin/{program}"),
        )?;
        let text = read(&dist.source.join("deploy/systemd").join(&unit))?;
        tree.add(
            &format!("lib/systemd/system/{unit}"),
            &text.replace("/usr/local/bin/", "/usr/bin/"),
        )?;
        let config = format!("etc/hark/{program}.toml");
        tree.add(&config, &read(&tree.source(&format!("{program}.toml")))?)?;
        tree.add(
            &format!("usr/share/doc/{}/container.conf", package.name),
            &read(&dist.source.join("deploy/systemd/container.conf"))?,
        )?;
        tree.add("DEBIAN/conffiles", &format!("/{config}\n"))?;
        for script in ["postinst", "prerm", "postrm"] {
            let text = read(&tree.source(script))?
                .replace("@UNIT@", &unit)
                .replace("@NAME@", program)
                .replace("@START@", if package.starts { "yes" } else { "no" });
            let path = tree.add(&format!("DEBIAN/{script}"), &text)?;
            let executable = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&path, executable).map_err(|error| at(&path, &error))?;
        }
        tree.pack("Depends: adduser\n", package.description)?;
    }
    Ok(())
}

/// Makes the package of the demo page, the same for every architecture.
pub(super) fn page(dist: &Dist) -> Step {
    let tree = Tree::new(dist, "hark-client-demo", "all")?;
    copy_tree(
        &dist.source.join("client-demo"),
        &tree.folder.join("usr/share/hark/client-demo"),
    )?;
    let config = tree.folder.join("usr/share/hark/client-demo/config.json");
    std::fs::remove_file(&config).map_err(|error| at(&config, &error))?;
    // Where the services are is the administrator's to say.
    symlink("/etc/hark-client-demo/config.json", &config).map_err(|error| at(&config, &error))?;
    tree.add(
        "etc/hark-client-demo/config.json",
        &read(&tree.source("config.json"))?,
    )?;
    tree.add("DEBIAN/conffiles", "/etc/hark-client-demo/config.json\n")?;
    tree.pack(
        "Recommends: nginx | httpd\n",
        "chat and live events for web pages: demo page\n \
        A static page that posts and listens, for a web server to serve.",
    )
}

/// The files of a package on their way into it.
struct Tree<'dist> {
    dist: &'dist Dist,
    folder: PathBuf,
    name: &'static str,
    architecture: &'static str,
}

impl<'dist> Tree<'dist> {
    fn new(dist: &'dist Dist, name: &'static str, architecture: &'static str) -> Step<Self> {
        let folder = dist.out.join(format!("tree-{name}"));
        let tree = Self {
            dist,
            folder,
            name,
            architecture,
        };
        let licence = read(&dist.source.join("LICENSE"))?;
        tree.add(&format!("usr/share/doc/{name}/copyright"), &licence)?;
        Ok(tree)
    }

    fn source(&self, file: &str) -> PathBuf {
        self.dist.source.join("deploy/debian").join(file)
    }

    fn add(&self, path: &str, text: &str) -> Step<PathBuf> {
        let path = self.place(path)?;
        write(&path, text)?;
        Ok(path)
    }

    fn install(&self, program: &Path, path: &str) -> Step {
        copy(program, &self.place(path)?)
    }

    fn place(&self, path: &str) -> Step<PathBuf> {
        let path = self.folder.join(path);
        create_folder(path.parent().unwrap_or(&self.folder))?;
        Ok(path)
    }

    fn pack(self, fields: &str, description: &str) -> Step {
        let (name, architecture) = (self.name, self.architecture);
        let version = &self.dist.version;
        let control = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: {architecture}\n\
             Maintainer: The Hark maintainers <hark@localhost>\nSection: net\nPriority: optional\n\
             {fields}Description: {description}\n"
        );
        self.add("DEBIAN/control", &control)?;
        // Whatever this user's umask is.
        let mut modes = Command::new("chmod");
        shell(modes.args(["-R", "u=rwX,go=rX"]).arg(&self.folder))?;
        let file = format!("{name}_{version}_{architecture}.deb");
        let mut pack = Command::new("dpkg-deb");
        pack.args(["--root-owner-group", "-Zxz", "--build"])
            .args([&self.folder, &self.dist.out.join(file)])
            .env("SOURCE_DATE_EPOCH", &self.dist.time);
        shell(&mut pack)?;
        std::fs::remove_dir_all(&self.folder).map_err(|error| at(&self.folder, &error))
    }
}

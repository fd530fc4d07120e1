//! docs/recipes.md keeps its word: what runs on a command line, in Python and behind nginx. Its pages
//! are tried in `browser/tests/recipes.test.js`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use system_tests::{Front, Hark, Sender, hark};
use test_kit::{Listener, Process, Program, ensure, eventually};

const SOON: Duration = Duration::from_secs(30);
const CHANNEL: &str = "c3743620-4b1b-4c2b-9d80-05b0e5a2c1f0";

/// The code of one language in a recipe, in its order.
fn code(recipe: &str, language: &str) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(3);
    let path = root.expect("the workspace's root").join("docs/recipes.md");
    let text = std::fs::read_to_string(path).unwrap();
    let section = text.split(&format!("\n## {recipe}\n")).nth(1);
    let section = section.expect("a recipe of that name");
    let section = section.split("\n## ").next().unwrap_or_default();
    let begin = format!("```{language}\n");
    let blocks = section.split(&begin).skip(1);
    let blocks = blocks.map(|rest| rest.split("```").next().unwrap_or_default().to_owned());
    blocks.collect()
}

/// The same, with the addresses of this hark.
fn code_for(hark: &Hark, recipe: &str, language: &str) -> Vec<String> {
    let port = hark.process().socket("mqtt").port();
    let blocks = code(recipe, language).into_iter().map(|block| {
        block
            .replace("http://localhost:8080", &hark.url("chat"))
            .replace("http://localhost:8081", &hark.url("sse"))
            .replace("-h localhost -p 1883", &format!("-h 127.0.0.1 -p {port}"))
    });
    blocks.collect()
}

/// A script, run by the Python that has the libraries.
fn python(folder: &Path, name: &str, script: &str) -> Program {
    let file: PathBuf = folder.join(name);
    std::fs::write(&file, script).unwrap();
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
    Program::of_step(clients.join("python/venv/bin/python"), "clients").arg(file)
}

fn shell(line: &str) -> Program {
    Program::of_system("sh", "dash").args(["-c", line])
}

async fn prints(process: &mut Process, wanted: &str) {
    eventually!(SOON, {
        let ended = process.ended();
        ensure!(ended.is_none(), "{ended:?}: {}", process.stderr());
        let printed = process.stdout();
        ensure!(printed == wanted, "{printed}");
        Ok(())
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_posts_and_listens_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut hark = Hark::up(&folder.path().join("data")).await;
    let blocks = code_for(&hark, "Python in and out", "python");
    let [post, listen] = blocks.try_into().expect("two scripts");
    let post = python(folder.path(), "post.py", &post);
    let mut listening = python(folder.path(), "listen.py", &listen).spawn();
    let posted = post.clone().arg("one").run(SOON).await;
    assert_eq!(posted.stdout, "1", "{posted:?}");
    prints(&mut listening, "one").await;
    hark.stop().await;
    // Sent while nobody takes it.
    let mut waiting = post.arg("two").spawn();
    eventually!(SOON, {
        let said = waiting.stderr();
        ensure!(said.contains("trying again"), "{said}");
        Ok(())
    });
    hark.start().await;
    assert!(waiting.wait(SOON).await.success());
    prints(&mut listening, "one\ntwo").await;
    listening.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_hears_and_a_server_rings() {
    let folder = tempfile::tempdir().unwrap();
    let hark = Hark::up(folder.path()).await;
    let lines = code_for(&hark, "A device with mosquitto_sub", "sh").concat();
    let (listen, say) = lines.trim().split_once('\n').expect("two lines");
    let mosquitto = Program::of_system("mosquitto_sub", "mosquitto-clients");
    let listen = listen.replacen("mosquitto_sub", "exec \"$0\"", 1);
    let mut device = shell(&listen).arg(mosquitto.path()).spawn();
    let ring = code_for(&hark, "A notification bell", "sh").concat();
    // What is said before the device has subscribed is not for it.
    eventually!(SOON, {
        let rung = shell(&ring).run(SOON).await;
        ensure!(rung.stdout.contains("\"seq\""), "{rung:?}");
        let heard = device.stdout();
        ensure!(heard.contains("Your parcel is there"), "{heard}");
        Ok(())
    });
    let said = shell(say).run(SOON).await;
    assert!(said.stdout.contains("21.5 °C"), "{said:?}");
    let heard = device.wait_for_line(|line| line == said.stdout);
    let heard = tokio::time::timeout(SOON, heard).await;
    assert_eq!(heard, Ok(true), "the same bytes: {}", device.stdout());
    device.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_nginx_a_page_of_the_site_posts_and_listens() {
    let folder = tempfile::tempdir().unwrap();
    let environment = code("Behind nginx", "sh").concat();
    let mut program = hark(["up", "--data"]).arg(folder.path());
    for listener in ["--chat", "--sse", "--demo", "--mqtt", "--ops"] {
        program = program.args([listener, "127.0.0.1:0"]);
    }
    let exports = environment
        .lines()
        .filter_map(|line| line.strip_prefix("export "));
    for setting in exports {
        let (name, value) = setting.split_once('=').unwrap();
        program = program.env(name, value);
    }
    let mut hark = program.start().await;
    let locations = code("Behind nginx", "nginx").concat();
    let locations = locations
        .replace("127.0.0.1:8080", &hark.socket("chat").to_string())
        .replace("127.0.0.1:8081", &hark.socket("sse").to_string());
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {{folder}}/{kind};\n"))
        .concat();
    let front = Front::with(&format!(
        "daemon off;\nmaster_process off;\npid {{folder}}/pid;\nerror_log stderr;\nevents {{ }}\n\
         http {{\naccess_log off;\n{temporary}server {{\nlisten {{front}};\n{locations}}}\n}}\n"
    ))
    .await;
    let site = format!("http://{}/hark", front.address());
    let mut listener = Listener::new(format!("{site}/events?c={CHANNEL}"));
    listener.expect("ready", SOON).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let post = client.post(Sender::to(&site).messages_url(CHANNEL));
    let post = post
        .header("Host", "www.example.org")
        .header("Origin", "https://www.example.org")
        .body("from the site");
    assert_eq!(post.send().await.unwrap().status(), 201);
    let heard = listener.expect("message", SOON).await.json();
    assert_eq!(heard["text"], "from the site");
    // Without Hark a browser is told to come back.
    hark.kill().await;
    let away = client
        .get(format!("{site}/events?c={CHANNEL}"))
        .send()
        .await;
    let away = away.unwrap();
    assert_eq!(away.status(), 200);
    assert_eq!(away.headers()["content-type"], "text/event-stream");
    assert!(
        away.text()
            .await
            .unwrap()
            .starts_with("retry: 5000\nevent: ping\n")
    );
}

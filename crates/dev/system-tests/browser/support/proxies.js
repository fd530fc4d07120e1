import { cp, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";

const DEPLOY = fileURLToPath(new URL("../../../../../deploy/", import.meta.url));
const DEMO = fileURLToPath(new URL("../../../../../client-demo/", import.meta.url));

/**
 * How to start nginx by its example, in front of the services and the page.
 *
 * @param {object} options
 * @param {string} options.folder for everything that it writes
 * @param {number} options.port where it listens
 * @param {number} options.inner where it listens to itself, when Hark lies under a path
 * @param {string} options.chat host and port of chat-service
 * @param {string} options.sse host and port of broadcast-sse
 * @param {{cert: string, key: string}} [options.tls] the files of a certificate
 * @param {boolean} [options.underAPath] as deploy/README.md says
 */
export async function nginx({ folder, port, inner, chat, sse, tls, underAPath }) {
  const site = replaced(await text("examples/nginx.conf"), [
    ...(await surroundings({ folder, chat, sse })),
    ...(tls
      ? [
          ["listen 443 ssl http2;", `listen 127.0.0.1:${port} ssl http2;`],
          ["/etc/letsencrypt/live/chat.example.org/fullchain.pem", tls.cert],
          ["/etc/letsencrypt/live/chat.example.org/privkey.pem", tls.key],
        ]
      : [
          ["listen 443 ssl http2;", underAPath ? "{changed}" : `listen 127.0.0.1:${port};`],
          ["ssl_certificate ", "# "],
          ["ssl_certificate_key ", "# "],
        ]),
  ]);
  const [changed, outer] = underAPath ? await blocks("nginx") : [];
  const servers = underAPath
    ? replaced(
        `${site.replace("{changed}", changed)} server { listen 127.0.0.1:${port};\n${outer} }`,
        [["127.0.0.1:8000", `127.0.0.1:${inner}`]],
      )
    : site;
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    .map((kind) => `${kind}_temp_path ${folder}/${kind};`)
    .join("\n");
  const file = path.join(folder, "nginx.conf");
  const main = `daemon off; master_process off; pid ${folder}/nginx.pid; error_log stderr;`;
  const http = `include /etc/nginx/mime.types; access_log off; ${temporary}`;
  await writeFile(file, `${main} events {} http { ${http}\n${servers} }`);
  const args = ["-e", "stderr", "-c", file];
  return { program: "nginx", args, url: url({ tls, port, underAPath }) };
}

/** The same for Caddy. */
export async function caddy({ folder, port, chat, sse, tls, underAPath }) {
  const scheme = tls ? "https" : "http";
  const certificate = tls ? `\n\ttls ${tls.cert} ${tls.key}` : "";
  let site = replaced(await text("examples/Caddyfile"), [
    ...(await surroundings({ folder, chat, sse })),
    ["\nchat.example.org {", `\n${scheme}://127.0.0.1:${port} {\n\tbind 127.0.0.1${certificate}`],
  ]);
  if (underAPath) {
    const [block] = await blocks("caddy");
    const handles = site.slice(site.indexOf("\t@chat"), site.indexOf("\t# An EventSource"));
    site = replaced(site, [[handles, replaced(block, [["# …", handles]])]]);
  }
  const file = path.join(folder, "Caddyfile");
  // Nothing of the machine's: neither its ports 80 and 2019, nor its authorities.
  const own = "admin off\n\tauto_https disable_redirects\n\tskip_install_trust";
  // Without HTTP/3, which browsers would go over to.
  await writeFile(file, `{\n\t${own}\n\tservers {\n\t\tprotocols h1 h2\n\t}\n}\n${site}`);
  const args = ["run", "--adapter", "caddyfile", "--config", file];
  return { program: "caddy", args, url: url({ tls, port, underAPath }) };
}

function url({ tls, port, underAPath }) {
  return `${tls ? "https" : "http"}://127.0.0.1:${port}/${underAPath ? "chat/" : ""}`;
}

/** What both examples name: the services, and the page, which is told as deploy/README.md says. */
async function surroundings({ folder, chat, sse }) {
  const page = path.join(folder, "client-demo");
  await cp(DEMO, page, { recursive: true });
  const [, config] = (await text("README.md")).match(/echo '(.*)' > .*\/config.json\n/);
  await writeFile(path.join(page, "config.json"), config);
  return [
    ["127.0.0.1:8080", chat],
    ["127.0.0.1:8081", sse],
    ["/usr/share/hark/client-demo", page],
  ];
}

/** The blocks of code in deploy/README.md that are in this language. */
async function blocks(language) {
  const all = (await text("README.md")).matchAll(/```(\w+)\n([^]*?)```/g);
  return [...all].filter(([, named]) => named === language).map(([, , code]) => code);
}

function text(name) {
  return readFile(path.join(DEPLOY, name), "utf8");
}

function replaced(text, pairs) {
  for (const [from, to] of pairs) {
    if (!text.includes(from)) throw new Error(`the example has no ${JSON.stringify(from)}`);
    text = text.replaceAll(from, () => to);
  }
  return text;
}

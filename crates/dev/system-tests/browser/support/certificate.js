import { execFile } from "node:child_process";
import path from "node:path";
import { promisify } from "node:util";

/** The files of a certificate of this machine that nobody has signed, made in `folder`. */
export async function selfSigned(folder) {
  const [cert, key] = ["cert.pem", "key.pem"].map((name) => path.join(folder, name));
  const options = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  const names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
  const files = ["-days", "2", "-out", cert, "-keyout", key];
  try {
    await promisify(execFile)("openssl", ["req", ...options, ...names, ...files]);
  } catch (error) {
    if (error.code === "ENOENT") throw new Error("openssl is missing: apt-get install openssl");
    throw error;
  }
  return { cert, key };
}

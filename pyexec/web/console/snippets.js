// The same request as a command or as a program.

const PYTHON_OPTIONS = {
  docker_image: "image", requirements_txt: "requirements", stdin: "stdin", script_args: "args",
  output_files: "output_files", pre_commands: "pre_commands",
};
const PYTHON_LIMITS = { timeout_seconds: "timeout" };
const CLI_LIMITS = {
  timeout_seconds: "--timeout", memory_mb: "--memory", disk_mb: "--disk", cpu_shares: "--cpu", cpus: "--cpus",
  cpu_seconds: "--cpu-seconds",
};

export function curlOf(body, server, hasToken) {
  const authorization = hasToken ? ` \\\n    -H "Authorization: Bearer $PYEXEC_TOKEN"` : "";
  return `curl -s${authorization} \\\n    --json ${shell(JSON.stringify(body))} \\\n    ${server}/api/v1/eval\n`;
}

export function pythonOf(body, server, hasToken) {
  const method = body.eval_last_expr ? "eval" : "run";
  const options = Object.entries(PYTHON_OPTIONS).filter(([name]) => name in body).map(([name, option]) => [option, python(body[name])]);
  if (body.env_vars) {
    const pairs = body.env_vars.map((pair) => pair.split(/=(.*)/s)).map(([name, value = ""]) => `${python(name)}: ${python(value)}`);
    options.push(["env", `{${pairs.join(", ")}}`]);
  }
  for (const [name, value] of Object.entries(body.config ?? {})) {
    options.push(name === "network_disabled" ? ["network", "True"] : [PYTHON_LIMITS[name] ?? name, python(value)]);
  }
  const given = ["code", ...options.map(([name, value]) => `${name}=${value}`)].join(", ");
  const token = hasToken ? `, token=os.environ["PYEXEC_TOKEN"]` : "";
  return `${hasToken ? "import os\n\n" : ""}from pyexec_client import Client\n\ncode = ${pythonText(body.code)}\n`
    + `with Client(${python(server)}${token}) as client:\n    result = client.${method}(${given})\n    print(result.status, result.stdout)\n`;
}

export function commandOf(body, server, hasToken) {
  const flags = [`--server ${shell(server)}`];
  const add = (flag, values) => values?.forEach((value) => flags.push(`${flag} ${shell(value)}`));
  if (body.docker_image) add("--image", [body.docker_image]);
  add("-e", body.env_vars);
  add("--pre-command", body.pre_commands);
  add("--output-file", body.output_files);
  for (const [name, value] of Object.entries(body.config ?? {})) {
    flags.push(name === "network_disabled" ? "--network" : `${CLI_LIMITS[name]} ${shell(String(value))}`);
  }
  if (body.requirements_txt) flags.push(`--requirements <(printf %s ${shell(body.requirements_txt)})`);
  if (body.stdin) flags.push(`--stdin <(printf %s ${shell(body.stdin)})`);
  const args = body.script_args ? ` -- ${body.script_args.map(shell).join(" ")}` : "";
  const token = hasToken ? "# PYEXEC_TOKEN has the token\n" : "";
  const command = body.eval_last_expr ? "eval" : "run";
  return `${token}printf %s ${shell(body.code)} | python-executor ${command} ${flags.join(" ")} -${args}\n`;
}

/** Quote text for a POSIX shell. */
export function shell(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

/** Write a string, or a list of strings, as Python. JSON strings are Python strings, except for lone surrogates. */
function python(value) {
  return Array.isArray(value) ? `[${value.map(python).join(", ")}]` : JSON.stringify(value);
}

function pythonText(text) {
  const isPlain = !text.includes('"""') && !text.includes("\\") && !text.endsWith('"') && !/[^\n\t\x20-\x7e\xa0-\uffff]/.test(text);
  return isPlain ? `"""\\\n${text}"""` : python(text);
}

// A Node program that uses dockerode, as test_clients.py runs it: node dockerode.js NAME.
// DOCKER_HOST names the engine. It prints what it saw as JSON.
'use strict';
const Docker = require('dockerode');
const { PassThrough } = require('stream');
const docker = new Docker();
const name = process.argv[2];
const options = { Image: 'busybox', name, HostConfig: { NetworkMode: 'none' } };
const ended = (stream) => new Promise((resolve, reject) =>
  stream.on('end', resolve).on('close', resolve).on('error', reject));

function collected() {
  const stream = new PassThrough();
  stream.text = '';
  stream.on('data', (data) => { stream.text += data; });
  return stream;
}

async function run() {
  const [out, err] = [collected(), collected()];
  const command = ['sh', '-c', 'echo out; echo err >&2; exit 3'];
  const settings = { ...options, Tty: false };
  const [result, container] = await docker.run('busybox', command, [out, err], settings);
  await container.remove();
  return [result.StatusCode, out.text, err.text];
}

async function attach() {
  const Cmd = ['sh', '-c', 'read x; echo got $x'];
  const input = { OpenStdin: true, StdinOnce: true, AttachStdin: true };
  const container = await docker.createContainer({ ...options, Cmd, ...input });
  const streams = { stdin: true, stdout: true, stderr: true };
  const stream = await container.attach({ stream: true, hijack: true, ...streams });
  const [out, err] = [collected(), collected()];
  docker.modem.demuxStream(stream, out, err);
  await container.start();
  stream.end('typed\n');
  await ended(stream);
  const { StatusCode } = await container.wait();
  await container.remove();
  return [StatusCode, out.text, err.text];
}

async function execAndLogs() {
  const Cmd = ['sh', '-c', 'for i in 1 2 3; do echo $i; sleep 0.1; done; sleep 1000'];
  const container = await docker.createContainer({ ...options, Cmd });
  await container.start();
  const exec = await container.exec({ Cmd: ['cat'], AttachStdin: true, AttachStdout: true });
  const stream = await exec.start({ hijack: true, stdin: true });
  const [out, log] = [collected(), collected()];
  docker.modem.demuxStream(stream, out, out);
  stream.end('typed\n');
  await ended(stream);
  const { ExitCode } = await exec.inspect();
  const logs = await container.logs({ follow: true, stdout: true, stderr: true });
  docker.modem.demuxStream(logs, log, log);
  while (!log.text.includes('3\n')) await new Promise((resolve) => log.once('data', resolve));
  const sample = await container.stats({ stream: false });
  await container.remove({ force: true });
  return [ExitCode, out.text, log.text, Object.keys(sample).includes('cpu_stats')];
}

(async () => {
  const seen = { ping: String(await docker.ping()), run: await run() };
  seen.attach = await attach();
  seen.execAndLogs = await execAndLogs();
  try {
    await docker.getContainer(name).inspect();
  } catch (error) {
    seen.gone = [error.statusCode, error.reason];
  }
  console.log(JSON.stringify(seen));
})().catch((error) => { console.error(error); process.exit(1); });

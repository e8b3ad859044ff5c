// What a Node program does with dockerode: node dockerode.js NAME; DOCKER_HOST says where. Prints what it saw as JSON.
'use strict';
const Docker = require('dockerode');
const { PassThrough } = require('stream');
const docker = new Docker();
const name = process.argv[2];
const options = { Image: 'busybox', name, HostConfig: { NetworkMode: 'none' } };
const ended = (stream) => new Promise((resolve, reject) => stream.on('end', resolve).on('close', resolve).on('error', reject));

function collected() {
  const stream = new PassThrough();
  stream.text = '';
  stream.on('data', (data) => { stream.text += data; });
  return stream;
}

async function run() {
  const [out, err] = [collected(), collected()];
  const [result, container] = await docker.run('busybox', ['sh', '-c', 'echo out; echo err >&2; exit 3'], [out, err], { ...options, Tty: false });
  await container.remove();
  return [result.StatusCode, out.text, err.text];
}

async function attach() {
  const container = await docker.createContainer({ ...options, Cmd: ['sh', '-c', 'read x; echo got $x'], OpenStdin: true, StdinOnce: true, AttachStdin: true });
  const stream = await container.attach({ stream: true, stdin: true, stdout: true, stderr: true, hijack: true });
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
  const container = await docker.createContainer({ ...options, Cmd: ['sh', '-c', 'for i in 1 2 3; do echo $i; sleep 0.1; done; sleep 1000'] });
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
  const seen = { ping: String(await docker.ping()), run: await run(), attach: await attach(), execAndLogs: await execAndLogs() };
  try {
    await docker.getContainer(name).inspect();
  } catch (error) {
    seen.gone = [error.statusCode, error.reason];
  }
  console.log(JSON.stringify(seen));
})().catch((error) => { console.error(error); process.exit(1); });

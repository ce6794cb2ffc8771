// testcontainers for node, as tests of applications use it, against an engine that has busybox and python images. Its
// reaper is an image that only a registry has: it is switched off, as the documentation says how.
'use strict';
const assert = require('assert');
const fs = require('fs');
const http = require('http');
const path = require('path');
const { GenericContainer, Network, Wait } = require('testcontainers');

const PYTHON = 'python:3.11-slim';

async function page(container, port, name = '') {
  return new Promise((resolve, reject) => {
    http.get(`http://${container.getHost()}:${container.getMappedPort(port)}/${name}`, (answer) => {
      const parts = [];
      answer.on('data', (part) => parts.push(part)).on('end', () => resolve(Buffer.concat(parts).toString()));
    }).on('error', reject);
  });
}

async function all(stream) {
  const parts = [];
  for await (const part of stream) parts.push(Buffer.from(part));
  return Buffer.concat(parts);
}

/** The default: all exposed ports listen, inside and outside. */
async function ports() {
  const container = await new GenericContainer('busybox')
    .withName('ports')
    .withExposedPorts(80)
    .withEnvironment({ GREETING: 'hello' })
    .withLabels({ kind: 'test' })
    .withCommand(['sh', '-c', 'mkdir /www; echo $GREETING >/www/index.html; sleep 0.2; exec httpd -f -p 80 -h /www'])
    .start();
  assert.strictEqual(await page(container, 80), 'hello\n');
  assert.strictEqual(container.getName(), '/ports');
  assert.strictEqual(container.getFirstMappedPort(), container.getMappedPort(80));
  const { output, exitCode } = await container.exec(['sh', '-c', 'echo $GREETING; exit 7']);
  assert.deepStrictEqual([output, exitCode], ['hello\n', 7]);
  const as = await container.exec(['sh', '-c', 'id -u; pwd; echo $B'], { user: '33', workingDir: '/tmp', env: { B: 'c' } });
  assert.strictEqual(as.output, '33\n/tmp\nc\n');
  const before = container.getMappedPort(80);
  await container.restart({ timeout: 1 });
  assert(container.getMappedPort(80) > 0 && before > 0);
  assert.strictEqual(await page(container, 80), 'hello\n');
  await container.stop();
}

/** Log messages, health, HTTP, the end of a short one, commands that succeed. */
async function waiting() {
  const logged = await new GenericContainer('busybox')
    .withCommand(['sh', '-c', 'echo starting; sleep 0.2; echo "now ready"; echo "now ready" >&2; sleep 1000'])
    .withWaitStrategy(Wait.forLogMessage(/now ready/, 2))
    .start();
  const lines = await logged.logs();
  const seen = await new Promise((resolve) => {
    let text = '';
    lines.on('data', (part) => {
      text += part;
      if (text.split('now ready').length === 3) resolve(text);
    });
  });
  assert(seen.includes('starting'));
  await logged.stop();

  const healthy = await new GenericContainer('busybox')
    .withCommand(['sh', '-c', 'sleep 0.3; touch /ready; sleep 1000'])
    .withHealthCheck({ test: ['CMD-SHELL', 'test -e /ready'], interval: 100, timeout: 3000, retries: 100, startPeriod: 0 })
    .withWaitStrategy(Wait.forHealthCheck())
    .start();
  assert.strictEqual((await healthy.exec(['test', '-e', '/ready'])).exitCode, 0);
  await healthy.stop();

  const web = await new GenericContainer(PYTHON)
    .withExposedPorts(8000)
    .withCopyContentToContainer([{ content: 'from a test', target: '/site/index.html', mode: 0o644 }])
    .withWorkingDir('/site')
    .withCommand(['python3', '-m', 'http.server', '8000'])
    .withWaitStrategy(Wait.forHttp('/', 8000).forStatusCode(200))
    .start();
  assert.strictEqual(await page(web, 8000), 'from a test');
  await web.stop();

  const short = await new GenericContainer('busybox')
    .withCommand(['sh', '-c', 'echo once'])
    .withWaitStrategy(Wait.forOneShotStartup())
    .start();
  await short.stop();

  const commanded = await new GenericContainer('busybox')
    .withCommand(['sh', '-c', 'sleep 0.2; touch /done; sleep 1000'])
    .withWaitStrategy(Wait.forAll([Wait.forSuccessfulCommand('test -e /done')]))
    .start();
  await commanded.stop();

  const failed = new GenericContainer('busybox')
    .withCommand(['sh', '-c', 'echo no; exit 1'])
    .withWaitStrategy(Wait.forLogMessage('never said'))
    .withStartupTimeout(5000);
  await assert.rejects(() => failed.start());
}

/** Files in and out, mounts, users, limits. */
async function files() {
  const directory = fs.mkdtempSync(path.join(require('os').tmpdir(), 'files-'));
  fs.writeFileSync(path.join(directory, 'one'), 'one');
  const container = await new GenericContainer('busybox')
    .withCommand(['sleep', '1000'])
    .withBindMounts([{ source: directory, target: '/given', mode: 'ro' }])
    .withTmpFs({ '/scratch': 'rw,noexec,size=64k' })
    .withCopyFilesToContainer([{ source: path.join(directory, 'one'), target: '/copied/one', mode: 0o600 }])
    .withCopyDirectoriesToContainer([{ source: directory, target: '/directory' }])
    .withUser('0')
    .withUlimits({ nofile: { soft: 100, hard: 200 } })
    .withResourcesQuota({ memory: 0.0625, cpu: 0.5 })
    .withAddedCapabilities('NET_ADMIN')
    .withDroppedCapabilities('MKNOD')
    .withExtraHosts([{ host: 'far', ipAddress: '192.0.2.1' }])
    .withSharedMemorySize(1024 * 1024)
    .withPrivilegedMode()
    .start();
  const script = 'cat /given/one /copied/one /directory/one; stat -c %a /copied/one; ulimit -n; grep -c far /etc/hosts';
  assert.strictEqual((await container.exec(['sh', '-c', script])).output, 'oneoneone600\n100\n1\n');
  assert.notStrictEqual((await container.exec(['touch', '/given/two'])).exitCode, 0);
  await container.copyContentToContainer([{ content: 'later', target: '/tmp/later' }]);
  const archive = await all(await container.copyArchiveFromContainer('/tmp/later'));
  assert(archive.includes('later'));
  await container.stop({ remove: true });
  fs.rmSync(directory, { recursive: true });
}

/** A network of one's own, with names. */
async function networks() {
  const network = await new Network().start();
  const server = await new GenericContainer('busybox')
    .withNetwork(network)
    .withNetworkAliases('db', 'database')
    .withCommand(['sh', '-c', 'mkdir /www; echo rows >/www/index.html; exec httpd -f -p 80 -h /www'])
    .withExposedPorts(80)
    .start();
  const client = await new GenericContainer('busybox').withNetwork(network).withCommand(['sleep', '1000']).start();
  for (const name of ['db', 'database']) {
    assert.strictEqual((await client.exec(['wget', '-q', '-O', '-', `http://${name}/`])).output, 'rows\n');
  }
  assert(server.getNetworkNames().includes(network.getName()));
  assert(server.getIpAddress(network.getName()).includes('.'));
  await client.stop();
  await server.stop();
  await network.stop();
}

/** One container for many tests, and an image made of one. */
async function again() {
  const make = () => new GenericContainer('busybox').withCommand(['sleep', '1000']).withReuse().start();
  const [first, second] = [await make(), await make()];
  assert.strictEqual(first.getId(), second.getId());
  const image = await first.commit({ repo: 'made', tag: '1', deleteOnExit: false });
  assert(image, image);
  await first.stop();
  const made = await new GenericContainer('made:1').withCommand(['sleep', '1000']).start();
  await made.stop();
  // Nobody has it, and there is no registry to ask.
  await assert.rejects(() => new GenericContainer('nobody:1').start());
}

// It lets go of the socket that logs come by: a program that waits for nothing else would end.
setInterval(() => {}, 1000);

(async () => {
  for (const part of [ports, waiting, files, networks, again]) {
    console.error(part.name);
    await part();
  }
  console.log('passed');
  process.exit(0);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});

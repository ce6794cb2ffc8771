// dockerode, as those use it who write tools on Docker, against an engine that has the busybox image.
'use strict';
const assert = require('assert');
const http = require('http');
const { PassThrough } = require('stream');
const Docker = require('dockerode');

const docker = new Docker();

/** All that a stream says, when it ends. */
function text(stream) {
  return new Promise((resolve, reject) => {
    const parts = [];
    stream.on('data', (part) => parts.push(part));
    stream.on('end', () => resolve(Buffer.concat(parts).toString()));
    stream.on('error', reject);
  });
}

/** The two streams of a multiplexed one. */
async function demultiplexed(stream) {
  const out = new PassThrough();
  const err = new PassThrough();
  docker.modem.demuxStream(stream, out, err);
  const said = [text(out), text(err)];
  stream.on('end', () => [out, err].forEach((one) => one.end()));
  return Promise.all(said);
}

/** What an HTTP server says, as soon as there is one. */
async function page(port) {
  for (let tries = 0; tries < 400; tries += 1) {
    try {
      return await new Promise((resolve, reject) => {
        http.get({ host: '127.0.0.1', port, path: '/' }, (answer) => text(answer).then(resolve, reject)).on('error', reject);
      });
    } catch (error) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
  throw new Error(`nobody answers at ${port}`);
}

async function refused(status, words, call) {
  const error = await call().then(() => null, (failure) => failure);
  assert(error, `it is not refused: ${words}`);
  assert.strictEqual(error.statusCode, status, error.message);
  assert(error.message.includes(words), error.message);
}

/** run, with output, exit codes and failures. */
async function running() {
  assert.strictEqual((await docker.ping()).toString(), 'OK');
  assert((await docker.version()).ApiVersion);
  const out = new PassThrough();
  const err = new PassThrough();
  const said = [text(out), text(err)];
  const [result, container] = await docker.run('busybox', ['sh', '-c', 'echo out; echo err >&2; exit 3'], [out, err], {
    Tty: false,
    Env: ['A=b'],
  });
  out.end();
  err.end();
  assert.strictEqual(result.StatusCode, 3);
  assert.deepStrictEqual(await Promise.all(said), ['out\n', 'err\n']);
  await container.remove();
  await refused(404, 'No such container', () => container.inspect());
  await refused(404, 'No such image: nobody:latest', () => docker.createContainer({ Image: 'nobody' }));
}

/** A container that stays: ports, volumes, labels, limits, exec, logs, stats, top, copies. */
async function staying() {
  await docker.createVolume({ Name: 'data', Labels: { kind: 'test' } });
  const container = await docker.createContainer({
    name: 'web',
    Image: 'busybox',
    Cmd: ['sh', '-c', 'mkdir /www; echo served >/www/index.html; echo ready; exec httpd -f -p 80 -h /www'],
    Env: ['A=b'],
    Labels: { kind: 'test' },
    ExposedPorts: { '80/tcp': {} },
    HostConfig: {
      PortBindings: { '80/tcp': [{ HostIp: '127.0.0.1', HostPort: '0' }] },
      Binds: ['data:/data'],
      Memory: 64 * 1024 * 1024,
      RestartPolicy: { Name: 'unless-stopped' },
    },
  });
  await container.start();
  const seen = await container.inspect();
  assert.strictEqual(seen.State.Running, true);
  assert.strictEqual(seen.HostConfig.Memory, 64 * 1024 * 1024);
  assert.strictEqual(await page(Number(seen.NetworkSettings.Ports['80/tcp'][0].HostPort)), 'served\n');
  const listed = await docker.listContainers({ filters: { label: ['kind=test'] } });
  assert.deepStrictEqual(listed.map((one) => one.Names), [['/web']]);
  assert.strictEqual(listed[0].Ports[0].PrivatePort, 80);

  // Exec: output, input, exit code.
  const exec = await container.exec({ Cmd: ['sh', '-c', 'echo $A; echo e >&2; exit 5'], AttachStdout: true, AttachStderr: true });
  assert.deepStrictEqual(await demultiplexed(await exec.start({ hijack: true })), ['b\n', 'e\n']);
  assert.strictEqual((await exec.inspect()).ExitCode, 5);
  const cat = await container.exec({ Cmd: ['cat'], AttachStdin: true, AttachStdout: true });
  const wire = await cat.start({ hijack: true, stdin: true });
  const echoed = demultiplexed(wire);
  wire.end('through');
  assert.deepStrictEqual(await echoed, ['through', '']);

  // Logs: as they are, and followed.
  assert((await container.logs({ stdout: true })).toString().includes('ready'));
  const followed = await container.logs({ stdout: true, stderr: true, follow: true });
  const first = new PassThrough();
  docker.modem.demuxStream(followed, first, first);
  assert.strictEqual((await new Promise((resolve) => first.once('data', resolve))).toString(), 'ready\n');
  followed.destroy();

  // Copies in and out are archives.
  const archive = await container.getArchive({ path: '/www/index.html' });
  const bytes = await new Promise((resolve, reject) => {
    const parts = [];
    archive.on('data', (part) => parts.push(part)).on('end', () => resolve(Buffer.concat(parts))).on('error', reject);
  });
  assert(bytes.includes('served'));
  await container.putArchive(bytes, { path: '/data' });
  const stat = await container.infoArchive({ path: '/data/index.html' });
  assert(stat.statusCode === 200 || stat);
  await refused(404, 'Could not find the file', () => container.getArchive({ path: '/nowhere' }));

  // Figures, processes, changes.
  const stats = await container.stats({ stream: false });
  assert(stats.memory_stats.usage > 0 && stats.cpu_stats.cpu_usage.total_usage > 0 && stats.networks.eth0, stats);
  const stream = await container.stats({ stream: true });
  const line = await new Promise((resolve) => stream.once('data', resolve));
  assert.strictEqual(JSON.parse(line.toString()).name, '/web');
  stream.destroy();
  assert((await container.top()).Processes.some((row) => row.join(' ').includes('httpd')));
  assert((await container.changes()).some((change) => change.Path === '/www/index.html' && change.Kind === 1));

  await container.update({ Memory: 96 * 1024 * 1024, MemorySwap: -1 });
  assert.strictEqual((await container.inspect()).HostConfig.Memory, 96 * 1024 * 1024);
  await container.pause();
  assert.strictEqual((await container.inspect()).State.Status, 'paused');
  await container.unpause();
  await container.rename({ name: 'renamed' });
  await refused(409, 'volume is in use', () => docker.getVolume('data').remove());
  const image = await container.commit({ repo: 'made', tag: '1' });
  assert(image.Id.startsWith('sha256:'), image);
  await container.stop({ t: 0 });
  await container.start();
  await container.restart({ t: 0 });
  await container.kill();
  await container.remove({ v: true, force: true });
  await docker.getVolume('data').remove();
}

/** Attach, with input, and on a terminal. */
async function attached() {
  const container = await docker.createContainer({
    Image: 'busybox', Cmd: ['sh', '-c', 'wc -c; exit 4'], OpenStdin: true, StdinOnce: true, HostConfig: { NetworkMode: 'none' },
  });
  const wire = await container.attach({ stream: true, stdin: true, stdout: true, stderr: true, hijack: true });
  const said = demultiplexed(wire);
  await container.start();
  wire.end('x'.repeat(100000));
  assert.deepStrictEqual(await said, ['100000\n', '']);
  assert.strictEqual((await container.wait()).StatusCode, 4);
  await container.remove();
  const terminal = await docker.createContainer({
    Image: 'busybox', Cmd: ['sh', '-c', 'read -r line; stty size; echo [$line]'], Tty: true, OpenStdin: true, HostConfig: { NetworkMode: 'none' },
  });
  const screen = await terminal.attach({ stream: true, stdin: true, stdout: true, hijack: true });
  const shown = text(screen);
  await terminal.start();
  await terminal.resize({ h: 40, w: 120 });
  screen.write('typed\r');
  assert((await shown).includes('40 120\r\n[typed]\r\n'));
  await terminal.wait();
  await terminal.remove();
}

/** Networks with names, connected and disconnected while they are used. */
async function networks() {
  const network = await docker.createNetwork({ Name: 'back', Driver: 'bridge', CheckDuplicate: true, Labels: { kind: 'test' } });
  const make = async (name, aliases) => {
    const container = await docker.createContainer({
      name, Image: 'busybox', Cmd: ['sleep', '1000'],
      HostConfig: { NetworkMode: 'back' },
      NetworkingConfig: { EndpointsConfig: { back: { Aliases: aliases } } },
    });
    await container.start();
    return container;
  };
  const database = await make('database', ['db']);
  const asker = await make('asker', []);
  const ask = async (name) => {
    const exec = await asker.exec({ Cmd: ['ping', '-c', '1', '-W', '5', name], AttachStdout: true, AttachStderr: true });
    await demultiplexed(await exec.start({ hijack: true }));
    return (await exec.inspect()).ExitCode;
  };
  assert.strictEqual(await ask('database'), 0);
  assert.strictEqual(await ask('db'), 0);
  const seen = await network.inspect();
  assert.deepStrictEqual(Object.values(seen.Containers).map((one) => one.Name).sort(), ['asker', 'database']);
  await network.disconnect({ Container: 'database' });
  assert.notStrictEqual(await ask('database'), 0);
  await network.connect({ Container: 'database', EndpointConfig: { Aliases: ['again'] } });
  assert.strictEqual(await ask('again'), 0);
  await refused(403, 'has active endpoints', () => network.remove());
  assert.strictEqual((await docker.listNetworks({ filters: { label: ['kind=test'] } })).length, 1);
  await Promise.all([database, asker].map((container) => container.remove({ force: true })));
  await network.remove();
}

/** Images out, in, by name and gone; what is told of all of it. */
async function images() {
  const since = Math.floor(Date.now() / 1000) - 1;
  const events = await docker.getEvents({ since, filters: { type: ['image'] } });
  const told = [];
  let rest = '';
  const untagged = new Promise((resolve) => {
    events.on('data', (part) => {
      const lines = (rest + part).split('\n');
      rest = lines.pop();
      for (const line of lines.filter(Boolean)) {
        told.push(JSON.parse(line).Action);
        if (told.includes('untag') && told.includes('load')) resolve();
      }
    });
  });
  const image = docker.getImage('busybox:latest');
  await image.tag({ repo: 'mine', tag: '1' });
  const archive = await new Promise((resolve, reject) => {
    docker.getImage('mine:1').get().then((stream) => {
      const parts = [];
      stream.on('data', (part) => parts.push(part)).on('end', () => resolve(Buffer.concat(parts))).on('error', reject);
    }, reject);
  });
  await docker.getImage('mine:1').remove();
  const { Readable } = require('stream');
  const loading = await docker.loadImage(Readable.from([archive]));
  const progress = await new Promise((resolve, reject) => {
    docker.modem.followProgress(loading, (error, output) => (error ? reject(error) : resolve(output)));
  });
  assert(progress.some((line) => (line.stream || '').includes('Loaded image: mine:1')), JSON.stringify(progress));
  assert((await docker.listImages({ filters: { reference: ['mine'] } }))[0].RepoTags.includes('mine:1'));
  assert((await docker.getImage('mine:1').history()).length >= 1);
  await docker.getImage('mine:1').remove();
  await refused(404, 'No such image: mine:1', () => docker.getImage('mine:1').inspect());
  await untagged;
  events.destroy();

  // Import makes an image of an exported container.
  const container = await docker.createContainer({ Image: 'busybox', Cmd: ['true'] });
  const imported = await docker.importImage(await container.export(), { repo: 'flat', tag: '1' });
  await new Promise((resolve, reject) => {
    docker.modem.followProgress(imported, (error, output) => (error ? reject(error) : resolve(output)));
  });
  assert((await docker.getImage('flat:1').inspect()).RootFS.Layers.length === 1);
  await container.remove();
  await docker.getImage('flat:1').remove();
  for (const prune of ['pruneContainers', 'pruneVolumes', 'pruneNetworks', 'pruneImages']) {
    const pruned = await docker[prune]();
    assert('SpaceReclaimed' in pruned || prune === 'pruneNetworks', JSON.stringify(pruned));
  }
  assert((await docker.df()).Images.length >= 1);
  // As where there is no swarm.
  await refused(503, 'This node is not a swarm manager', () => docker.listServices());
}

(async () => {
  for (const part of [running, staying, attached, networks, images]) {
    console.error(part.name);
    await part();
  }
  const info = await docker.info();
  assert.strictEqual(info.Containers, 0);
  console.log('passed');
  // A connection that is kept for the next request keeps node too.
  process.exit(0);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});

/**
 * A gate on loopback to the cluster's API server, without TLS: it sees each request that goes through, and can cut it off
 * before the server has it, or after the server has done it. Who comes with whatever token goes on as the cluster's admin.
 */
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http';
import { Agent, type RequestOptions, request as requestOverTls } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import { text } from 'node:stream/consumers';
import type { Gate } from '../drivers/kubernetes-sidehook.ts';
import type { Asked } from '../support/api-server.ts';

export async function openGate(namespace: string): Promise<Gate & AsyncDisposable> {
  const far = await findServer();
  const state: Gate['state'] = { script: undefined };
  const sockets = new Set<Socket>();
  const execs = new Set<Socket>();
  const gate = createServer((near, answer) => void pass(near, answer).catch(() => near.socket.destroy()));

  async function pass(near: IncomingMessage, answer: ServerResponse): Promise<void> {
    const body = await text(near);
    const asked = askedOf(near, body);
    if (state.script?.(asked, 'before') !== undefined) return void near.socket.destroy();
    const request = requestOverTls(far.url + near.url, optionsOf(near));
    near.socket.on('close', () => request.destroy());
    request.end(body);
    const [response] = (await once(request, 'response')) as [IncomingMessage];
    if (asked.query.get('watch') === 'true') {
      answer.writeHead(response.statusCode ?? 0, response.headers).flushHeaders();
      response.on('error', () => near.socket.destroy()).pipe(answer);
      return;
    }
    const said = await text(response);
    if (state.script?.(asked, 'after') !== undefined) return void near.socket.destroy();
    const { 'transfer-encoding': _, ...headers } = response.headers;
    answer.writeHead(response.statusCode ?? 0, { ...headers, 'content-length': Buffer.byteLength(said) }).end(said);
  }

  const optionsOf = ({ method, headers }: IncomingMessage): RequestOptions => {
    const own: IncomingHttpHeaders = { ...headers, authorization: `Bearer ${far.token}` };
    delete own.host;
    return { method: method ?? 'GET', headers: own, ca: far.ca, agent: far.agent };
  };

  gate.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket)).on('error', () => undefined);
  });
  gate.on('upgrade', (near, socket: Socket, head: Buffer) => {
    if (state.script?.(askedOf(near, ''), 'before') !== undefined) return void socket.destroy();
    const request = requestOverTls(far.url + near.url, { ...optionsOf(near), agent: false });
    request.on('error', () => socket.destroy());
    request.on('response', (response) => {
      socket.write(`HTTP/1.1 ${response.statusCode} X\r\nConnection: close\r\n\r\n`);
      response.pipe(socket);
    });
    request.on('upgrade', (response, other: Socket, rest: Buffer) => {
      const lines = Object.entries(response.headers).map(([name, value]) => `${name}: ${value}\r\n`);
      socket.write(`HTTP/1.1 101 Switching Protocols\r\n${lines.join('')}\r\n`);
      socket.write(rest);
      other.write(head);
      execs.add(socket);
      for (const [one, two] of [
        [socket, other],
        [other, socket],
      ] as const) {
        one.on('error', () => two.destroy()).on('close', () => two.destroy());
        one.pipe(two);
      }
      socket.on('close', () => execs.delete(socket));
    });
    socket.on('close', () => request.destroy());
    request.end();
  });
  await once(gate.listen(0, '127.0.0.1'), 'listening');
  return {
    ...{ namespace, state, url: `http://127.0.0.1:${(gate.address() as AddressInfo).port}` },
    cutExecs() {
      for (const socket of execs) socket.destroy();
    },
    async [Symbol.asyncDispose]() {
      const closed = once(gate, 'close');
      gate.close();
      for (const socket of sockets) socket.destroy();
      await closed;
      far.agent.destroy();
    },
  };
}

function askedOf({ method = '', url = '', headers }: IncomingMessage, body: string): Asked {
  const { pathname, searchParams } = new URL(url, 'http://api');
  return {
    ...{ method, path: pathname, query: searchParams, body: body === '' ? undefined : JSON.parse(body) },
    token: (headers.authorization ?? '').replace(/^Bearer /, ''),
  };
}

async function findServer() {
  const { clusters, users } = JSON.parse(await readFile(process.env.KUBECONFIG ?? '', 'utf8'));
  const { server, 'certificate-authority': authority } = clusters[0].cluster;
  return {
    url: server as string,
    token: users[0].user.token as string,
    ca: await readFile(authority),
    agent: new Agent({ keepAlive: true }),
  };
}

// The reference multiplex library as a peer: `client URL` answers streams, `server` opens them,
// `forward URL PORT` is a client whose streams go to a port of this machine.
import net from 'node:net';
import { createRequire } from 'node:module';
import { Readable } from 'node:stream';
const require = createRequire(process.cwd() + '/');
const { WebSocketMultiplex, WebSocketMultiplexSocket } = require('@exposr/ws-multiplex');
const { WebSocket, WebSocketServer } = require('ws');

const say = (event) => process.stdout.write(JSON.stringify(event) + '\n');

// Echoes, stopping to read for a moment after each MiB. "quit" makes it close.
function echo(sock) {
    let sinceRest = 0;
    let quitting = false;
    sock.on('data', (data) => {
        if (data.length === 4 && data.toString() === 'quit') {
            quitting = true;
            sock.destroy();
            return;
        }
        const room = sock.write(data);
        sinceRest += data.length;
        if (!room) {
            sock.pause();
            sock.once('drain', () => sock.resume());
        } else if (sinceRest > 1024 * 1024) {
            sinceRest = 0;
            sock.pause();
            setTimeout(() => sock.resume(), 2);
        }
    });
    sock.on('error', (error) => say({ event: 'error', error: String(error) }));
    sock.on('close', () => say({ event: 'closed', quitting }));
}

// Joins a stream with a connection to a port of this machine.
function forwardTo(port) {
    return (sock) => {
        const target = net.connect(port, '127.0.0.1');
        sock.pipe(target).pipe(sock);
        sock.on('error', () => target.destroy());
        target.on('error', () => sock.destroy());
        sock.on('close', () => target.destroy());
        target.on('close', () => sock.destroy());
    };
}

function client(url, answer) {
    const ws = new WebSocket(url);
    ws.on('open', () => {
        const wsm = new WebSocketMultiplex(ws);
        wsm.on('connection', answer);
        say({ event: 'open' });
    });
    ws.on('unexpected-response', (_, response) => {
        response.once('data', (chunk) => {
            say({ event: 'refused', status: response.statusCode, body: chunk.toString() });
            process.exit(0);
        });
    });
    ws.on('close', (code, reason) => {
        say({ event: 'gone', code, reason: reason.toString() });
        process.exit(0);
    });
}

function* pieces(buffer) {
    for (let i = 0; i < buffer.length; i += 262144) yield buffer.subarray(i, i + 262144);
}

// Opens a stream, sends `size` bytes, reads them back slowly, closes.
function exchange(wsm, size) {
    return new Promise((resolve, reject) => {
        const sock = wsm.createConnection({}, (error) => error && reject(error));
        const sent = Buffer.alloc(size);
        for (let i = 0; i < size; i++) sent[i] = (i * 31 + (i >> 8)) & 255;
        let at = 0;
        let rest = 0;
        sock.on('data', (data) => {
            if (sent.compare(data, 0, data.length, at, at + data.length) !== 0) reject(new Error('differs'));
            at += data.length;
            rest += data.length;
            if (at === size) {
                sock.destroy();
            } else if (rest > 1024 * 1024) {
                rest = 0;
                sock.pause();
                setTimeout(() => sock.resume(), 2);
            }
        });
        sock.on('error', reject);
        sock.on('close', () => (at === size ? resolve(at) : reject(new Error(`closed after ${at}`))));
        sock.on('ready', () => Readable.from(pieces(sent)).pipe(sock, { end: false }));
    });
}

// Opens a stream that the peer is to close after what it has sent.
function until_close(wsm) {
    return new Promise((resolve, reject) => {
        const sock = wsm.createConnection({}, (error) => error && reject(error));
        let total = 0;
        sock.on('data', (data) => { total += data.length; });
        sock.on('error', reject);
        sock.on('close', () => resolve(total));
        sock.on('ready', () => sock.write('send and close'));
    });
}

function server() {
    const wss = new WebSocketServer({ port: 0, host: '127.0.0.1' });
    wss.on('listening', () => say({ event: 'listening', port: wss.address().port }));
    wss.on('connection', (ws) => {
        const wsm = new WebSocketMultiplex(ws);
        (async () => {
            const small = await Promise.all(Array.from({ length: 100 }, (_, i) => exchange(wsm, 10000 + i)));
            const big = await exchange(wsm, 20 * 1024 * 1024);
            const ended = await until_close(wsm);
            say({ event: 'done', small: small.length, big, ended });
            ws.close(1008, 'enough');
        })().catch((error) => { say({ event: 'failed', error: String(error) }); process.exit(1); });
        ws.on('close', () => { say({ event: 'gone' }); process.exit(0); });
    });
}

const [mode, url, port] = process.argv.slice(2);
if (mode === 'client') client(url, echo);
else if (mode === 'forward') client(url, forwardTo(Number(port)));
else server();

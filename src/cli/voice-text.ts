/** Who may release output to clients, in words: for `colo status`, and for the dashboard's page. */
import type { NodeStatus } from '../observe/status.ts';
import { formatMs } from './output.ts';

/** Of the node itself, and until when. */
export function voiceText({ voice, peer }: Pick<NodeStatus, 'voice' | 'peer'>): string {
  switch (voice.state) {
    case 'alone':
      return 'speaks; the record says that it alone has the VM';
    case 'leased':
      return voice.leftMs > 0
        ? `speaks, for ${formatMs(voice.leftMs)} more unless the secondary renews that`
        : 'its lease is over: silent until the secondary renews it';
    case 'yielded':
      return 'silent: it gives way to its secondary';
    case 'fenced':
      return 'silent for good';
    case 'silent':
      return `silent${peer.name === null ? '' : `; node ${peer.name} speaks, if a node does`}`;
  }
}

/** Of the peer, as it says itself; a later build may have other states. */
export function peerVoiceText(voice: string): string {
  return PEER_VOICES[voice] ?? voice;
}

const PEER_VOICES: Partial<Record<string, string>> = { alone: 'speaks', leased: 'speaks' };

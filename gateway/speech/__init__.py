"""From a text to a sound: Hanzi to pinyin, pinyin to Mandarin, an announcement around it, files that devices fetch.

`speech.Speech` is what the gateway holds; a link asks it for audio. Making sound happens in child processes
(`worker`, held by `pool`): the synthesiser (GPL-3) is loaded there only, and where it crashes, the gateway does not.
All of it is an extra: `pip install 'mingluo[speech]'`. Without it, devices get the text.
"""

"""Recovery phrases of wallets: words of a public list, 12 to 24, that stand for a private key.

A wallet announces its phrase: "mnemonic", "recovery phrase", "seed". Behind such a word a run of
words of BIP-39's English list is looked for, on its line or those below, also numbered or quoted:

    Mnemonic: …   ["…", "…"]   1. … 2. …

Twelve words of the list in a row are no accident. The last of them holds a checksum; where it does
not fit, another scheme made the phrase (Electrum and lnd use the same words).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

#: the words, each as the number of letters that it shares with the one before, and the others
CODED_WORDS = """
    0abandon2ility2le2out3ve2sent3orb3tract3urd2use1ccess3ident3ount3use2hieve2id2oustic2quire2ross
    2t3ion3or3ress3ual1dapt2d3ict3ress2just2mit2ult2vance3ice1erobic1ffair3ord2raid1gain2e3nt2ree1h
    ead1im2r3port2sle1larm2bum2cohol2ert2ien2l3ey3ow2most2one2pha2ready2so2ter2ways1mateur3zing2ong
    3unt2used1nalyst2chor3ient2ger3le3ry2imal2kle2nounce3ual2other2swer2tenna3ique2xiety2y1part2olo
    gy2pear3le3rove2ril1rch3tic2ea3na2gue2m3ed3or3y2ound2range3est3ive3ow2t3efact3ist3work1sk2pect2
    sault3et3ist3ume2thma1thlete2om2tack3end3itude3ract1uction2dit2gust2nt2thor3o3umn1verage2ocado3
    id1wake3re3y2esome2ful2kward1xis0baby2chelor3on2dge2g2lance3cony3l2mboo2nana3ner2r3ely3gain3rel
    2se3ic3ket2ttle1each3n3uty2cause3ome2ef2fore2gin2have3ind2lieve3ow3t2nch3efit2st2tray3ter3ween2
    yond1icycle2d2ke2nd2ology2rd3th2tter1lack3de3me3nket3st2eak3ss2ind2ood3ssom3use2ue3r3sh1oard3t2
    dy2il2mb2ne3us2ok3st2rder3ing3row2ss2ttom2unce2x2y1racket3in3nd3ss3ve2ead3eze2ick3dge3ef3ght3ng
    3sk2occoli3ken3nze3om3ther3wn2ush1ubble2ddy3get2ffalo2ild2lb3k3let2ndle3ker2rden3ger3st2s3iness
    3y2tter2yer2zz0cabbage3in3le2ctus2ge2ke2ll3m2mera3p2n3al3cel3dy3non3oe3vas3yon2pable3ital3tain2
    r3bon3d3go3pet3ry3t2se3h3ino3tle3ual2t3alog3ch3egory3tle2ught3se3tion2ve1eiling2lery2ment2nsus3
    tury2real3tain1hair3lk3mpion3nge3os3pter3rge3se3t2eap3ck3ese3f3rry3st2icken3ef3ld3mney2oice3ose
    2ronic2uckle3nk3rn1igar2nnamon2rcle2tizen3y2vil1laim3p3rify3w3y2ean3rk3ver2ick3ent3ff3mb3nic3p2
    ock3g3se3th3ud3wn2ub3mp3ster3tch1oach3st2conut2de2ffee2il3n2llect3or3umn2mbine3e3fort3ic3mon3pa
    ny2ncert3duct3firm3gress3nect3sider3trol3vince2ok3l2pper3y2ral3e3n3rect2st2tton2uch3ntry3ple3rs
    e3sin2ver2yote1rack3dle3ft3m3ne3sh3ter3wl3zy2eam3dit3ek3w2icket3me3sp3tic2op3ss3uch3wd2ucial3el
    3ise3mble3nch3sh2y3stal1ube2lture2p3board2rious3rent3tain3ve2shion3tom2te1ycle0dad2mage3p2nce3g
    er2ring2sh2ughter2wn2y1eal2bate3ris2cade3ember3ide3line3orate3rease2er2fense3ine3y2gree2lay3ive
    r2mand3ise2nial3tist3y2part3end3osit3th3uty2rive2scribe3ert3ign3k3pair3troy2tail3ect2velop3ice3
    ote1iagram3l3mond3ry2ce2esel3t2ffer2gital3nity2lemma2nner3osaur2rect3t2sagree3cover3ease3h3miss
    3order3play3tance2vert3ide3orce2zzy1octor3ument2g2ll3phin2main2nate3key3or2or2se2uble2ve1raft3g
    on3ma3stic3w2eam3ss2ift3ll3nk3p3ve2op2um2y1uck2mb2ne2ring2st2tch3y1warf1ynamic0eager3le2rly3n3t
    h2sily3t3y1cho2ology3nomy1dge2it2ucate1ffort1gg1ight2ther1lbow2der2ectric3gant3ment3phant3vator
    2ite2se1mbark3ody3race2erge2otion2ploy3ower3ty1nable3ct2d3less3orse2emy3rgy2force2gage3ine2hanc
    e2joy2list2ough2rich3oll2sure2ter3ire3ry2velope1pisode1qual3ip1ra3se2ode3sion2ror2upt1scape2say
    3ence2tate1ternal2hics1vidence3l2oke3lve1xact3mple2cess3hange3ite3lude3use2ecute3rcise2haust3ib
    it2ile3st3t2otic2pand3ect3ire3lain3ose3ress2tend3ra1ye3brow0fabric2ce3ulty2de2int3th2ll3se2me3i
    ly3ous2n3cy3tasy2rm2shion2t3al3her3igue2ult2vorite1eature2bruary2deral2e3d3l2male2nce2stival2tc
    h2ver2w1iber2ction2eld2gure2le3m3ter2nal3d3e3ger3ish2re3m3st2scal3h2t3ness2x1lag3me3sh3t3vor2ee
    2ight3p2oat3ck3or3wer2uid3sh2y1oam2cus2g2il2ld3low2od3t2rce3est3get3k3tune3um3ward2ssil3ter2und
    2x1ragile3me2equent3sh2iend3nge2og3nt3st3wn3zen2uit1uel2n3ny2rnace3y2ture0gadget2in2laxy3lery2m
    e2p2rage3bage3den3lic3ment2s3p2te3her2uge2ze1eneral3ius3re3tle3uine2sture1host1iant2ft2ggle2nge
    r2raffe3l2ve1lad3nce3re3ss2ide3mpse2obe3om3ry3ve3w2ue1oat2ddess2ld2od3se2rilla2spel3sip2vern2wn
    1rab3ce3in3nt3pe3ss3vity2eat3en2id3ef3t2ocery3up3w2unt1uard2ess2ide3lt3tar2n1ym0habit2ir2lf2mme
    r3ster2nd2ppy2rbor3d3sh3vest2t2ve2wk2zard1ead3lth3rt3vy2dgehog2ight2llo3met3p2n2ro1idden2gh2ll2
    nt2p2re2story1obby2ckey2ld3e3iday3low2me2ney2od2pe2rn3ror3se2spital3t2tel2ur2ver1ub2ge2man3ble3
    or2ndred3gry3t2rdle3ry3t2sband1ybrid0ice2on1dea3ntify2le1gnore1ll3egal3ness1mage2itate2mense3un
    e2pact3ose3rove3ulse1nch3lude3ome3rease2dex3icate3oor3ustry2fant3lict3orm2hale3erit2itial2ject3
    ury2mate2ner3ocent2put2quiry2sane3ect3ide3pire3tall2tact3erest3o2vest3ite3olve1ron1sland2olate2
    sue1tem1vory0jacket2guar2r2zz1ealous3ns2lly2wel1ob2in2ke2urney2y1udge2ice2mp2ngle3ior3k2st0kang
    aroo1een3p2tchup2y1ick2d3ney2nd3gdom2ss2t3chen3e3ten2wi1nee2ife2ock3w0lab3el3or2dder3y2ke2mp2ng
    uage2ptop2rge2ter3in2ugh3ndry2va2w3n3suit2yer2zy1eader3f3rn3ve2cture2ft2g3al3end2isure2mon2nd3g
    th3s2opard2sson2tter2vel1iar2berty3rary2cense2fe3t2ght2ke2mb3it2nk2on2quid2st2ttle2ve2zard1oad3
    n2bster2cal3k2gic2nely3g2op2ttery2ud3nge2ve2yal1ucky2ggage2mber2nar3ch2xury1yrics0machine2d2gic
    3net2id3l3n2jor2ke2mmal2n3age3date3go3sion3ual2ple2rble3ch3gin3ine3ket3riage2sk3s3ter2tch3erial
    3h3rix3ter2ximum2ze1eadow3n3sure3t2chanic2dal3ia2lody3t2mber3ory2ntion3u2rcy3ge3it3ry2sh3sage2t
    al3hod1iddle3night2lk3lion2mic2nd3imum3or3ute2racle3ror2sery3s3take2x3ed3ture1obile2del3ify2m3e
    nt2nitor3key3ster3th2on2ral3e3ning2squito2ther3ion3or2untain3se2ve3ie1uch2ffin2le3tiply2scle3eu
    m3hroom3ic3t2tual1yself3tery2th0naive2me2pkin2rrow2sty2tion3ure1ear2ck2ed2gative3lect2ither2phe
    w2rve2st2t3work2utral2ver2ws2xt1ice2ght1oble2ise2minee2odle2rmal3th2se2table3e3hing3ice2vel2w1u
    clear2mber2rse2t0oak1bey2ject2lige2scure3erve2tain2vious1ccur2ean2tober1dor1ff3er3ice2ten1il1ka
    y1ld2ive2ympic1mit1nce2e2ion2line3y1pen3ra2inion2pose2tion1range2bit2chard2der3inary2gan2ient3g
    inal2phan1strich1ther1utdoor3er3put3side1val2en3r1wn3er1xygen1yster1zone0pact2ddle2ge2ir2lace3m
    2nda3el3ic3ther2per2rade3ent3k3rot3ty2ss2tch3h3ient3rol3tern2use2ve2yment1eace3nut3r3sant2lican
    2n3alty3cil2ople2pper2rfect3mit3son2t1hone3to2rase2ysical1iano2cnic3ture2ece2g3eon2ll3ot2nk2one
    er2pe2stol2tch2zza1lace3net3stic3te3y2ease3dge2uck3g3nge1oem3t2int2lar3e3ice2nd3y2ol2pular2rtio
    n2sition3sible3t2tato3tery2verty2wder3er1ractice3ise2edict3fer3pare3sent3tty3vent2ice3de3mary3n
    t3ority3son3vate3ze2oblem3cess3duce3fit3gram3ject3mote3of3perty3sper3tect3ud3vide1ublic2dding2l
    l3p3se2mpkin2nch2pil3py2rchase3ity3pose3se2sh2t2zzle1yramid0quality3ntum3rter2estion2ick3t3z2ot
    e0rabbit2ccoon3e3k2dar3io2il3n3se2lly2mp2nch3dom3ge2pid2re2te3her2ven2w2zor1eady3l3son2bel3uild
    2call3eive3ipe3ord3ycle2duce2flect3orm3use2gion3ret3ular2ject2lax3ease3ief3y2main3ember3ind3ove
    2nder3ew3t2open2pair3eat3lace3ort2quire2scue3emble3ist3ource3ponse3ult2tire3reat3urn2union2veal
    3iew2ward1hythm1ib3bon2ce3h2de3ge2fle2ght3id2ng2ot2pple2sk2tual2val3er1oad3st2bot3ust2cket2manc
    e2of3kie3m2se2tate2ugh3nd3te2yal1ubber2de2g2le2n3way2ral0sad3dle3ness2fe2il2lad3mon3on3t3ute2me
    3ple2nd2tisfy3oshi2uce3sage2ve2y1cale3n3re3tter2ene2heme3ool2ience3ssors2orpion3ut2rap3een3ipt3
    ub1ea3rch3son3t2cond3ret3tion3urity2ed3k2gment2lect3l2minar2nior3se3tence2ries3vice2ssion2ttle3
    up2ven1hadow3ft3llow3re2ed3ll3riff2ield3ft3ne3p3ver2ock3e3ot3p3rt3ulder3ve2rimp3ug2uffle2y1ibli
    ng2ck2de2ege2ght3n2lent3k3ly3ver2milar3ple2nce3g2ren2ster2tuate2x2ze1kate2etch2i3ll3n3rt2ull1la
    b3m2eep3nder2ice3de3ght3m2ogan3t3w2ush1mall3rt2ile2oke3oth1nack3ke3p2iff2ow1oap2ccer3ial3k2da2f
    t2lar3dier3id3ution3ve2meone2ng2on2rry3t2ul3nd3p3rce3th1pace3re3tial3wn2eak3cial3ed3ll3nd2here2
    ice3der3ke3n3rit2lit2oil3nsor3on3rt3t2ray3ead3ing2y1quare3eeze3irrel1table3dium3ff3ge3irs3mp3nd
    3rt3te3y2eak3el3m3p3reo2ick3ll3ng2ock3mach3ne3ol3ry3ve2rategy3eet3ike3ong3uggle2udent3ff3mble2y
    le1ubject3mit3way2ccess3h2dden2ffer2gar3gest2it2mmer2n3ny3set2per3ply3reme2re3face3ge3prise3rou
    nd3vey2spect3tain1wallow3mp3p3rm2ear3et2ift3m3ng3tch2ord1ymbol3ptom2rup2stem0table2ckle2g2il2le
    nt3k2nk2pe2rget2sk3te2ttoo2xi1each3m2ll2n3ant3nis3t2rm2st2xt1hank3t2eme3n3ory3re3y2ing3s2ought2
    ree3ive3ow2umb3nder1icket2de2ger2lt2mber3e2ny2p2red2ssue2tle1oast2bacco2day3dler2e2gether2ilet2
    ken2mato3orrow2ne3gue3ight2ol3th2p3ic3ple2rch3nado3toise2ss2tal2urist2ward3er3n2y1rack3de3ffic3
    gic3in3nsfer3p3sh3vel3y2eat3e3nd2ial3be3ck3gger3m3p2ophy3uble2uck3e3ly3mpet3st3th2y1ube2ition2m
    ble2na3nel2rkey3n3tle1welve3nty2ice3n3st2o1ype3ical0ugly1mbrella1nable3ware2cle3over2der3o2fair
    3old2happy2iform3que3t3verse2known2lock2til2usual2veil1pdate2grade2hold2on2per2set1rban2ge1sage
    2e3d3ful3less2ual1tility0vacant3uum2gue2lid3ley3ve2n3ish2por2rious2st2ult1ehicle2lvet2ndor3ture
    3ue2rb3ify3sion3y2ssel2teran1iable2brant2cious3tory2deo2ew2llage2ntage2olin2rtual3us2sa3it3ual2
    tal2vid1ocal2ice3d2lcano3ume2te2yage0wage3on2it2lk3l3nut2nt2rfare3m3rior2sh3p3te2ter2ve2y1ealth
    3pon3r3sel3ther2b2dding2ekend2ird2lcome2st2t1hale3t2eat3el3n3re2ip3sper1ide3th2fe2ld3l2n3dow3e3
    g3k3ner3ter2re2sdom3e3h2tness1olf2man2nder2od3l2rd3k3ld3ry3th1rap2eck3stle2ist3te2ong0yard1ear2
    llow1ou3ng3th0zebra2ro1one2o
"""
PHRASE_SIZES = (24, 21, 18, 15, 12)  # words: BIP-39, "Generating the mnemonic"
LONGEST_RUN = (
    30  # words of the list in a row: with some more around it; a longer one is a text or the list
)
REACH = 1024  # bytes behind an announcement in which its phrase ends
GAP = 192  # bytes; in twice as many behind an announcement its phrase begins
LEAST_VARIETY_OF_WORDS = 5  # fewer different ones are an example: "test test test … junk"
LABELS = frozenset(
    (b"phrase", b"seed", b"word", b"secret", b"key", b"wallet", b"recover", b"backup")
)
WORD_OF_PHRASE = re.compile(rb"(?<!\\)[A-Za-z]+")  # not the n of an escaped line's end
#: between two words: blanks, quotes and commas, plain or escaped, and the number of the next word
BETWEEN = re.compile(
    rb"(?:\\+[nrt]|[\s,;|\"'`\\\[\]()/-]){1,24}(?:\d{1,2}[.):]?(?:\s|\\+[nrt]|[\"'`]){0,8})?"
)
#: phrases of test networks and documents, as the first 12 hex of the SHA-256 of words and blanks
PUBLISHED_PHRASES = frozenset(
    ("9c5d0a6656e5", "b83e96417f61", "ecb0e7ba498c", "3a64bcd9cea4", "e433047d98bf")
)


def decoded_words() -> dict[bytes, int]:
    """The words of BIP-39's English list with their numbers."""
    words: dict[bytes, int] = {}
    word = ""
    for shared, rest in re.findall(r"(\d)([a-z]+)", CODED_WORDS.replace("\n", "").replace(" ", "")):
        word = word[: int(shared)] + rest
        words[word.encode()] = len(words)
    return words


WORD_NUMBERS = decoded_words()


class RecoveryPhrase(NamedTuple):
    """A recovery phrase: from where to where it goes, and whether its checksum fits."""

    start: int
    end: int
    fits: bool


def recovery_phrase(block: bytes, at: int, below: int = 3) -> RecoveryPhrase | None:
    """The phrase behind an announcement that ends at `at`, on its line or `below` more lines.

    A caller that finds none may take the next GAP bytes as looked at.
    """
    run: list[re.Match[bytes]] = []
    for word in WORD_OF_PHRASE.finditer(block, at, end_of_lines(block, at, below)):
        listed = word.group().lower() in WORD_NUMBERS
        if run and not (listed and BETWEEN.fullmatch(block, run[-1].end(), word.start())):
            found = phrase_of(run)
            if found:
                return found
            run = []
        if listed:
            run.append(word)
        if len(run) > LONGEST_RUN or not run and word.end() > at + 2 * GAP:
            return None
    return phrase_of(run)


def end_of_lines(block: bytes, at: int, below: int) -> int:
    """Where the line `below` lines below ends, at most REACH bytes on."""
    limit = min(at + REACH, len(block))
    for _ in range(below + 1):
        at = block.find(b"\n", at, limit) + 1
        if not at:
            return limit
    return at


def phrase_of(run: Sequence[re.Match[bytes]]) -> RecoveryPhrase | None:
    """The phrase in a run of listed words, which may hold words of the text around it."""
    words = [word.group().lower() for word in run]
    if not PHRASE_SIZES[-1] <= len(words) <= LONGEST_RUN:
        return None
    labels = next(number for number, word in enumerate(words) if word not in LABELS)
    for first, size in likely_places(len(words), labels):
        if checksum_fits(words[first : first + size]):
            return as_phrase(run[first : first + size], True)
    first = 0 if len(words) in PHRASE_SIZES else labels
    size = next((size for size in PHRASE_SIZES if size <= len(words) - first), 0)
    if not size or words == sorted(words):  # the list itself, in its order
        return None
    return as_phrase(run[first : first + size], False)


def likely_places(count: int, labels: int) -> Iterator[tuple[int, int]]:
    """Where and how long the phrase may be in a run of words, of which the first may be labels."""
    for first in range(labels + 1):
        if count - first in PHRASE_SIZES:
            yield first, count - first
    if count not in PHRASE_SIZES:
        size = next(size for size in PHRASE_SIZES if size < count)
        yield from ((first, size) for first in range(count - size + 1))


def as_phrase(run: Sequence[re.Match[bytes]], fits: bool) -> RecoveryPhrase | None:
    """The words as a phrase, unless they are known to everybody."""
    words = [word.group().lower() for word in run]
    known = sha256(b" ".join(words)).hex()[:12] in PUBLISHED_PHRASES
    if known or len(set(words)) < LEAST_VARIETY_OF_WORDS:
        return None
    return RecoveryPhrase(run[0].start(), run[-1].end(), fits)


def checksum_fits(words: Sequence[bytes]) -> bool:
    """Whether the numbers' last bits are the first bits of the hash of the others (BIP-39)."""
    number = 0
    for word in words:
        number = number << 11 | WORD_NUMBERS[word]
    size = len(words) // 3  # bits of the checksum: one for each 32 of the secret
    secret = number >> size
    digest = sha256(secret.to_bytes(4 * size, "big"))
    return number & (1 << size) - 1 == digest[0] >> 8 - size


def sha256(data: bytes) -> bytes:
    """The hash of these bytes."""
    import hashlib  # here, since it costs each worker 2 MiB, and phrases are rare

    return hashlib.sha256(data).digest()
